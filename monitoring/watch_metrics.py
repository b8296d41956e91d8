"""What the monitors see and believe, for people who watch them: delays, run lengths, the posterior of a change.

The conventions are those of :mod:`monitoring.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.records import Alarm, Feedback
from monitoring.config import STREAM_MONITORS

#: Upper bounds in seconds: from a click to a purchase a week later.
DELAY_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400, 259_200, 604_800)
#: Names of all monitors.
MONITORS = ("reward", *STREAM_MONITORS, "propensity")


class WatchMetrics:
    """What the monitors of each decision point show beside their alarms.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    decision_points
        Names of the configured decision points.
    """

    def __init__(self, registry: CollectorRegistry, decision_points: Iterable[str]) -> None:
        self.delay = Histogram(
            "leeway_outcome_delay_seconds",
            "Time from a decision to the last outcome that counts, of feedbacks with an outcome.",
            ["decision_point"],
            buckets=DELAY_BUCKETS,
            registry=registry,
        )
        self.drifts = Counter(
            "leeway_drift_alarms_total",
            "Changes that monitors reported and that the policy itself does not account for.",
            ["decision_point", "monitor"],
            registry=registry,
        )
        self.change_probability = Gauge(
            "leeway_reward_monitor_change_probability",
            "Posterior probability that the reward has changed since the last change that was reported.",
            ["decision_point"],
            registry=registry,
        )
        self.run_length = Gauge(
            "leeway_monitor_run_length",
            "Observations since the last change, the least of the monitor's streams; 0 while it has none.",
            ["decision_point", "monitor"],
            registry=registry,
        )
        for point in decision_points:
            self.delay.labels(point)
            self.change_probability.labels(point)
            for monitor in MONITORS:
                self.drifts.labels(point, monitor)
            for monitor in STREAM_MONITORS:
                self.run_length.labels(point, monitor)

    def observe_feedback(self, feedback: Feedback) -> None:
        """Take the delay of a feedback; one with the default reward has none."""
        if not feedback.defaulted:
            decision = feedback.decision
            self.delay.labels(decision.decision_point).observe((feedback.reward_time_ms - decision.time_ms) / 1_000.0)

    def observe_alarm(self, alarm: Alarm) -> None:
        """Count an alarm that is a drift, once for all streams that see it."""
        if not alarm.explained and not alarm.echo_of:
            self.drifts.labels(alarm.decision_point, alarm.monitor).inc()

    def observe_run_lengths(self, decision_point: str, run_lengths: Mapping[str, int]) -> None:
        """Show the shortest run of each monitor.

        Parameters
        ----------
        decision_point
            Its name.
        run_lengths
            Of each stream, named as by ``PointWatch.run_lengths``.
        """
        for monitor in STREAM_MONITORS:
            mine = [length for key, length in run_lengths.items() if key.partition(":")[0] == monitor]
            self.run_length.labels(decision_point, monitor).set(min(mine, default=0))
