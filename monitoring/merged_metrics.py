"""The metrics of several serving processes as those of one, and of the processes themselves.

The conventions are those of :mod:`monitoring.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

#: Gauges whose sum means something. Of the others the greatest is shown, as of spools the fullest, which refuses
#: first; unless they are in ``LEAST``.
SUMMED = frozenset(
    {
        "leeway_requests_in_flight",
        "leeway_requests_waiting",
        "leeway_log_queue_records",
        "leeway_spool_records",
    }
)
#: Gauges of which the least is shown: the process that is behind, and the room that is there for sure.
LEAST = frozenset(
    {
        "leeway_policy_generation",
        "leeway_policy_created_timestamp_seconds",
        "leeway_policy_learned_feedback",
        "leeway_disk_free_bytes",
    }
)

_Key = tuple[str, tuple[tuple[str, str], ...]]


class CrewMetrics:
    """What the supervisor of several serving processes counts.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.processes = Gauge(
            "leeway_serving_processes", "Serving processes that the supervisor keeps running.", registry=registry
        )
        self.ready = Gauge("leeway_serving_processes_ready", "Serving processes that serve now.", registry=registry)
        self.restarts = Counter(
            "leeway_serving_process_restarts_total",
            "Serving processes that ended by themselves and were started again.",
            registry=registry,
        )


@dataclass
class _Family:
    metric: Metric
    samples: dict[_Key, float] = field(default_factory=dict)


class MergedCollector(Collector):
    """Sums what several processes count, and shows of what they measure the sum, the least or the greatest.

    A process that was started again counts from 0; what its predecessors had counted when they were last asked is kept,
    so that no counter falls. One that does not answer is shown as it was when it last did, its gauges left out.

    Parameters
    ----------
    ask
        Returns the exposition of each process that answers; called at every scrape, on the thread that scrapes. A key
        is the number of the process and what tells it from its predecessors, such as its pid.
    """

    def __init__(self, ask: Callable[[], Mapping[tuple[int, int], str]]) -> None:
        self._ask = ask
        self._counted: dict[tuple[int, int], dict[str, _Family]] = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is, the processes know."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all processes as one."""
        gauges: dict[str, _Family] = {}
        for life, text in self._ask().items():
            counted: dict[str, _Family] = {}
            for metric in text_string_to_metric_families(text):
                if metric.type == "gauge":
                    _add(gauges, metric, metric.samples, _choice(metric.name))
                else:
                    _add(counted, metric, metric.samples, _sum)
            self._counted[life] = counted
        self._fold()
        counters: dict[str, _Family] = {}
        for counted in self._counted.values():
            for name, family in counted.items():
                merged = counters.setdefault(name, _Family(family.metric))
                for key, value in family.samples.items():
                    merged.samples[key] = merged.samples.get(key, 0.0) + value
        return [_metric(family) for family in (*counters.values(), *gauges.values())]

    def _fold(self) -> None:
        """Add what earlier processes of a number have counted into one, so that many restarts take no memory."""
        latest = dict(list(self._counted))  # pids by number: of two lives the later one stands behind
        for life in [life for life in self._counted if life[0] and latest[life[0]] != life[1]]:
            gone = self._counted.setdefault((0, 0), {})
            for name, family in self._counted.pop(life).items():
                kept = gone.setdefault(name, _Family(family.metric))
                for key, value in family.samples.items():
                    kept.samples[key] = kept.samples.get(key, 0.0) + value


def _sum(one: float, other: float) -> float:
    return one + other


def _choice(gauge: str) -> Callable[[float, float], float]:
    if gauge in SUMMED:
        return _sum
    return min if gauge in LEAST else max


def _add(
    families: dict[str, _Family], metric: Metric, samples: Iterable[Sample], merge: Callable[[float, float], float]
) -> None:
    family = families.setdefault(metric.name, _Family(metric))
    for sample in samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        known = family.samples.get(key)
        family.samples[key] = sample.value if known is None else merge(known, sample.value)


def _metric(family: _Family) -> Metric:
    metric = Metric(family.metric.name, family.metric.documentation, family.metric.type)
    for (name, labels), value in family.samples.items():
        metric.add_sample(name, dict(labels), value)
    return metric
