"""The table of all metrics in ``docs/metrics.md``; ``python -m monitoring.metric_page`` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from monitoring.disk_metrics import DiskCollector
from monitoring.generation_metrics import GenerationCollector, LineageMetrics
from monitoring.merged_metrics import CrewMetrics
from monitoring.metrics import PipelineMetrics, ServingMetrics
from monitoring.role_metrics import JoinCollector, JoinMemberCollector, RoleMetrics
from monitoring.stage_histogram import StageHistogram
from monitoring.watch_metrics import WatchMetrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
#: The table stands between these lines.
BEGIN = "<!-- written by: python -m monitoring.metric_page -->"
END = "<!-- end of the table -->"


class _NoTallies:
    """Of a server that has made no decision."""

    def cumulative(self, stage: str) -> list[int]:
        """Return that there was none."""
        return [0]

    def seconds(self, stage: str) -> float:
        """Return that it took no time."""
        return 0.0


class _Listing(CollectorRegistry):
    """Keeps what is registered in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[Any] = []  # what describes itself

    def register(self, collector: Collector) -> None:
        """Take note of it."""
        super().register(collector)
        self.listed.append(collector)


def register_all(registry: CollectorRegistry) -> None:
    """Register every metric there is, without a decision point."""
    ServingMetrics(registry, [])
    registry.register(StageHistogram(_NoTallies(), [], []))
    CrewMetrics(registry)
    registry.register(JoinCollector(dict))
    PipelineMetrics(registry, [])
    WatchMetrics(registry, [])
    registry.register(GenerationCollector([]))
    LineageMetrics(registry, {}, 0.0)
    RoleMetrics(registry, [])
    registry.register(JoinMemberCollector(lambda: None, lambda: 0))
    registry.register(DiskCollector(PAGE.parent))


def stored_name(metric: Metric) -> str:
    """Return the name under which Prometheus stores a metric: of counters with ``_total``."""
    return metric.name + ("_total" if metric.type == "counter" else "")


def metric_table() -> str:
    """Return the table in Markdown."""
    registry = _Listing()
    register_all(registry)
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for collector in registry.listed:
        for metric in collector.describe():
            labelled = collector if isinstance(collector, MetricWrapperBase) else metric
            # The client library tells the labels of a metric without samples nowhere else.
            labels = ", ".join(f"`{label}`" for label in labelled._labelnames) or "–"
            lines.append(f"| `{stored_name(metric)}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """Return a page with the table of now in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{metric_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
