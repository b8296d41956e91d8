"""What generations earned, how they came about, and whether they oscillate.

The conventions are those of :mod:`monitoring.metrics`. The number of a generation is a label, of the latest few alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.records import Generation, GenerationStatistics
from monitoring.generations import mean_reward, standard_error
from monitoring.oscillation import Oscillation

#: So many of the latest generations are shown one by one.
RECENT = 5
#: What a training is asked for by, and what else makes a champion.
TRAINED_FOR = ("drift", "schedule", "manual")
MOVED_BY = ("promote", "rollback")

_POINT = ["decision_point"]


class GenerationCollector(Collector):
    """The books of the generations: of the latest few, and in sum.

    They are restored from the log, so they are shown as they stand and not counted a second time.

    Parameters
    ----------
    decision_points
        Names of the configured decision points.
    """

    def __init__(self, decision_points: Sequence[str]) -> None:
        self._recent: dict[str, Sequence[GenerationStatistics]] = {}
        self._sums = dict.fromkeys(decision_points, (0, 0.0))

    def observe(self, decision_point: str, statistics: Sequence[GenerationStatistics]) -> None:
        """Show the books of a decision point, by ascending generation."""
        feedback, entropy = self._sums[decision_point]
        # After a failure the role goes back to what it had committed; a counter does not.
        self._sums[decision_point] = (
            max(feedback, sum(each.feedback for each in statistics)),
            max(entropy, sum(each.entropy_sum for each in statistics)),
        )
        self._recent = {**self._recent, decision_point: statistics[-RECENT:]}

    def describe(self) -> list[Metric]:
        """Return the metrics without samples."""
        return self._families({}, {})

    def collect(self) -> list[Metric]:
        """Return the metrics of now."""
        return self._families(self._sums.copy(), self._recent)

    def _families(
        self,
        sums: Mapping[str, tuple[int, float]],
        recent: Mapping[str, Sequence[GenerationStatistics]],
    ) -> list[Metric]:
        feedback = CounterMetricFamily(
            "leeway_monitor_feedback_total", "Feedbacks that the monitors have seen.", labels=_POINT
        )
        entropy = CounterMetricFamily(
            "leeway_propensity_entropy_nats_total",
            "Sum over these of the entropy of the probability vector; divide the rates of the two for its mean.",
            labels=_POINT,
        )
        for point, (count, nats) in sums.items():
            feedback.add_metric([point], count)
            entropy.add_metric([point], nats)
        labels = [*_POINT, "generation"]
        each_feedback = CounterMetricFamily(
            "leeway_recent_generation_feedback_total",
            f"Feedbacks of decisions of a generation, of the latest {RECENT}; a canary has a number of its own.",
            labels=labels,
        )
        each_reward = GaugeMetricFamily(
            "leeway_recent_generation_reward_mean",
            f"Mean reward while a generation acted, of the latest {RECENT}.",
            labels=labels,
        )
        each_error = GaugeMetricFamily(
            "leeway_recent_generation_reward_standard_error",
            "Standard error of that mean; NaN below two feedbacks.",
            labels=labels,
        )
        for point, statistics in recent.items():
            for each in statistics:
                key = [point, str(each.generation)]
                each_feedback.add_metric(key, each.feedback)
                each_reward.add_metric(key, mean_reward(each))
                each_error.add_metric(key, standard_error(each))
        return [feedback, entropy, each_feedback, each_reward, each_error]


class LineageMetrics:
    """How the generations of each decision point came about: trainings, verdicts of the gate, oscillation.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    periods
        Of each decision point, seconds between two scheduled trainings; ``None``: there is no schedule.
    started
        Seconds since 1970 from which the schedule of what was never trained counts.
    """

    def __init__(self, registry: CollectorRegistry, periods: Mapping[str, float | None], started: float) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, _POINT, registry=registry)

        self.trainings = Counter(
            "leeway_trainings_total",
            "Generations written to the ledger, by what asked for them and by the verdict of the gate.",
            ["decision_point", "reason", "result"],
            registry=registry,
        )
        self.trained = gauge(
            "leeway_training_timestamp_seconds",
            "When a generation was last trained, promoted or not, in seconds since 1970; 0 before the first.",
        )
        self.due = gauge(
            "leeway_training_due_timestamp_seconds",
            "When the next scheduled training is due, in seconds since 1970; not shown without a schedule.",
        )
        self.period = gauge(
            "leeway_training_period_seconds", "Time between scheduled trainings; not shown without a schedule."
        )
        self.estimate = gauge(
            "leeway_gate_estimate", "Off-policy estimate of the mean reward of the policy that the gate judged last."
        )
        self.champion_estimate = gauge(
            "leeway_gate_champion_estimate", "Off-policy estimate of its champion on the same feedback."
        )
        self.low = gauge("leeway_gate_difference_low", "Lower bound of the interval of the difference of the two.")
        self.high = gauge("leeway_gate_difference_high", "Upper bound of that interval.")
        self.held = gauge("leeway_promotion_held", "1 while an alarm holds promotions, else 0.")
        self.oscillates = gauge("leeway_oscillation_declared", "1 while generations are declared to oscillate, else 0.")
        self.p_value = gauge(
            "leeway_oscillation_p_value",
            "Of the last test whether generations oscillate; 1 until there are enough of them.",
        )
        self.level = gauge("leeway_oscillation_level", "Greatest p value at which that test would have declared it.")
        self.cycle = gauge(
            "leeway_oscillation_period_generations",
            "Generations after which they return most clearly, by that test; 0 until there are enough of them.",
        )
        self.amplitude = gauge(
            "leeway_oscillation_amplitude",
            "By how much the best phase of that period earns more than the worst, in units of reward.",
        )
        self._periods = periods
        for point, period in periods.items():
            for reason in TRAINED_FOR:
                for result in ("promoted", "refused"):
                    self.trainings.labels(point, reason, result)
            for reason in MOVED_BY:
                self.trainings.labels(point, reason, "promoted")
            for estimate in (self.estimate, self.champion_estimate, self.low, self.high):
                estimate.labels(point).set(nan)
            for metric in (self.trained, self.held, self.oscillates, self.level, self.cycle, self.amplitude):
                metric.labels(point)
            self.p_value.labels(point).set(1.0)
            if period is not None:
                self.period.labels(point).set(period)
                self.due.labels(point).set(started + period)

    def observe(self, entry: Generation) -> None:
        """Take the next entry of the ledger; one of a decision point that is not configured is left out."""
        point = entry.decision_point
        if point not in self._periods:
            return
        self.trainings.labels(point, entry.reason, "promoted" if entry.promoted else "refused").inc()
        if entry.reason not in TRAINED_FOR:
            return
        trained = entry.trained_ms / 1_000.0
        self.trained.labels(point).set(trained)
        period = self._periods[point]
        if period is not None:
            self.due.labels(point).set(trained + period)
        if not entry.run_id:  # it was not estimated
            return
        self.estimate.labels(point).set(entry.estimate)
        self.champion_estimate.labels(point).set(entry.champion_estimate)
        self.low.labels(point).set(entry.difference_low)
        self.high.labels(point).set(entry.difference_high)

    def observe_oscillation(self, decision_point: str, judged: Oscillation | None, *, declared: bool) -> None:
        """Show the last test of whether generations oscillate; ``None``: there are too few."""
        self.oscillates.labels(decision_point).set(declared)
        if judged is not None:
            self.p_value.labels(decision_point).set(judged.p_value)
            self.level.labels(decision_point).set(judged.level)
            self.cycle.labels(decision_point).set(judged.period)
            self.amplitude.labels(decision_point).set(judged.amplitude)
