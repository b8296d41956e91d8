"""What the roles behind the log show, whichever process runs them: errors, lag, and the join's book and watermarks.

The conventions are those of :mod:`monitoring.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.records import JoinAccounting

_POINT = ["decision_point"]


class RoleMetrics:
    """What every process that runs roles counts.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    roles
        Names of the roles that this process runs.
    """

    def __init__(self, registry: CollectorRegistry, roles: Iterable[str]) -> None:
        self.errors = Counter(
            "leeway_role_errors_total", "Errors after which a role was started again.", ["role"], registry=registry
        )
        self.up = Gauge("leeway_role_up", "1 while the role runs, else 0.", ["role"], registry=registry)
        self.rebalances = Counter(
            "leeway_rebalances_total",
            "Rebalances of its consumer group that the role has taken part in; none on the embedded log.",
            ["role"],
            registry=registry,
        )
        self.aborts = Counter(
            "leeway_transaction_aborts_total",
            "Transactions of the role that were aborted or given up; none on the embedded log.",
            ["role"],
            registry=registry,
        )
        self.lag_records = Gauge(
            "leeway_lag_records",
            "Records of a topic that a role has not yet committed: at most so many, and 0 if there is none.",
            ["role", "topic"],
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "leeway_lag_seconds",
            "Age of the oldest record of a topic that a role has not yet committed; 0 if there is none.",
            ["role", "topic"],
            registry=registry,
        )
        for role in roles:
            for metric in (self.errors, self.up, self.rebalances, self.aborts):
                metric.labels(role)


class JoinCollector(Collector):
    """The accounting of the join as metrics.

    The book is restored from the log after a restart, so its counters are read at the scrape instead of being
    counted a second time.

    Parameters
    ----------
    accounting
        Returns the book for every decision point, summed over partitions; called at every scrape, on the thread that
        scrapes.
    """

    def __init__(self, accounting: Callable[[], Mapping[str, JoinAccounting]]) -> None:
        self._accounting = accounting

    def describe(self) -> list[Metric]:
        """Return the metrics without samples, so that registering does not read the book."""
        return self._families({})

    def collect(self) -> list[Metric]:
        """Return the metrics with the book of now."""
        return self._families(self._accounting())

    def _families(self, book: Mapping[str, JoinAccounting]) -> list[Metric]:
        families: list[Metric] = []
        for field, text in _JOIN_COUNTERS.items():
            counter = CounterMetricFamily(f"leeway_join_{field}_total", text, labels=_POINT)
            for point, entry in book.items():
                counter.add_metric([point], getattr(entry, field))
            if field == "dead_letters" and book and "" not in book:
                # Of no known decision point. A counter that begins with its first letter has not increased by it.
                counter.add_metric([""], 0)
            families.append(counter)
        pending = GaugeMetricFamily(
            "leeway_join_pending_decisions", "Decisions whose feedback is still to come.", labels=_POINT
        )
        watermark = GaugeMetricFamily(
            "leeway_join_watermark_timestamp_seconds",
            "Event time up to which reward windows were closed, in seconds since 1970.",
            labels=_POINT,
        )
        for point, entry in book.items():
            pending.add_metric([point], entry.pending)
            watermark.add_metric([point], entry.watermark_ms / 1_000.0)
        return [*families, pending, watermark]


_JOIN_COUNTERS = {
    "decisions": "Decisions that the join has seen.",
    "feedback": "Feedbacks emitted, defaulted ones included.",
    "defaulted": "Feedbacks with the default reward: the window closed without an outcome.",
    "unactivated": "Deferred decisions that were not activated in time: they get no feedback.",
    "duplicate_decisions": "Decisions seen a second time and left out.",
    "duplicate_outcomes": "Outcomes seen a second time and left out.",
    "late_outcomes": "Outcomes after their window had closed.",
    "surplus_outcomes": "Outcomes that the aggregation does not count.",
    "dead_letters": "Records put aside because they could not be used.",
}


class JoinMember(Protocol):
    """What a member of the group that joins tells of itself; any thread may ask."""

    @property
    def commits(self) -> int:
        """Transactions committed since the start."""

    @property
    def restores(self) -> int:
        """Partitions whose state was read back from the log since the start."""

    @property
    def skewed(self) -> int:
        """Records put aside since the start because they were dated too far ahead."""

    def watermarks(self) -> Mapping[int, int]:
        """Return for each partition of this member the event time it has come to, in milliseconds since 1970."""

    def pending(self) -> int:
        """Return how many decisions of its partitions wait for their feedback."""


class JoinMemberCollector(Collector):
    """What one member of the join has: partitions come and go with the group, and so do their series.

    Parameters
    ----------
    member
        Returns the member, or ``None`` before it was made; called at every scrape, on the thread that scrapes.
    clock
        Milliseconds since 1970.
    """

    def __init__(self, member: Callable[[], JoinMember | None], clock: Callable[[], int]) -> None:
        self._member = member
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Return the metrics without samples."""
        return self._families(None)

    def collect(self) -> list[Metric]:
        """Return the metrics of now."""
        return self._families(self._member())

    def _families(self, member: JoinMember | None) -> list[Metric]:
        delay = GaugeMetricFamily(
            "leeway_join_watermark_delay_seconds",
            "How far the watermark of a partition of this member is behind the clock.",
            labels=["partition"],
        )
        pending = GaugeMetricFamily(
            "leeway_join_member_pending_decisions", "Decisions that wait for their feedback at this member."
        )
        totals = {
            "commits": CounterMetricFamily("leeway_join_commits_total", "Transactions that this member has committed."),
            "restores": CounterMetricFamily(
                "leeway_join_restores_total", "Partitions whose state this member has read back from the log."
            ),
            "skewed": CounterMetricFamily(
                "leeway_join_skewed_total", "Records that this member put aside: dated too far ahead."
            ),
        }
        if member is not None:
            now_ms = self._clock()
            for partition, watermark_ms in sorted(member.watermarks().items()):
                if watermark_ms > 0:  # it has seen something
                    delay.add_metric([str(partition)], max(0, now_ms - watermark_ms) / 1_000.0)
            pending.add_metric([], member.pending())
            for name, family in totals.items():
                family.add_metric([], getattr(member, name))
        return [delay, pending, *totals.values()]
