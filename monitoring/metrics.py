"""The metrics of serving and of learning; with :mod:`monitoring.role_metrics` all there are (see ``docs/metrics.md``).

Conventions: prefix ``leeway_``, base units (seconds, ratios), ``_total`` for counters. Labels take few values, known
from the configuration: a policy version or a decision id is never a label. Every series that is known at the start
exists from the start, with 0, so that an alert on an increase never misses the first one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import fsum, nan, sqrt
from statistics import stdev

from prometheus_client import CollectorRegistry, Counter, Gauge

from engine.records import (
    DIRECTION_DOWN,
    DIRECTION_UP,
    Alarm,
    Direction,
    FallbackReason,
    GenerationStatistics,
    fallback_name,
)
from monitoring.config import STREAM_MONITORS
from monitoring.detector import FloatArray
from monitoring.equilibrium import Course, fit
from monitoring.generations import mean_entropy, mean_reward, positive_share
from monitoring.tallied_histogram import TalliedHistogram

#: Upper bounds in seconds: a decision should take a few milliseconds.
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25)
PROPENSITY_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)
#: How many rewards the mean reward is taken over.
REWARD_WINDOW = 1_000

#: Of the service, and those of them that decide.
METHODS = ("Decide", "DecideBatch", "DecideStream", "Recommend", "Report", "ReportBatch", "Record")
DECIDING = METHODS[:4]

_POINT = ["decision_point"]
_MONITOR = ["decision_point", "monitor"]


class ServingMetrics:
    """What the server of decisions counts.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    decision_points
        Names of the configured decision points.
    """

    def __init__(self, registry: CollectorRegistry, decision_points: Iterable[str]) -> None:
        self.decisions = Counter(
            "leeway_decisions_total",
            "Decisions made, by what they fell back for (none: by the policy).",
            ["decision_point", "fallback"],
            registry=registry,
        )
        self.decisions_unrecorded = Counter(
            "leeway_decisions_unrecorded_total",
            "Decisions answered though the log could not take them; a retry may have recorded some since.",
            _POINT,
            registry=registry,
        )
        self.callers_decisions = Counter(
            "leeway_callers_decisions_total",
            "Decisions in which the caller's own choice acted.",
            _POINT,
            registry=registry,
        )
        self.apprentice_compared = Counter(
            "leeway_apprentice_compared_total",
            "Decisions in which the policy looked on as an apprentice.",
            _POINT,
            registry=registry,
        )
        self.apprentice_agreed = Counter(
            "leeway_apprentice_agreed_total",
            "In how many of those the likeliest action of the policy was the caller's; of n tied ones it counts 1 / n.",
            _POINT,
            registry=registry,
        )
        self.decision_duration = TalliedHistogram(
            "leeway_decision_duration_seconds",
            "Time from the request to the answer of one decision, without the transport.",
            _POINT,
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.propensity = TalliedHistogram(
            "leeway_propensity_ratio",
            "Probability with which the chosen action was drawn.",
            _POINT,
            buckets=PROPENSITY_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "leeway_requests_total",
            "Requests answered, by gRPC method and status code.",
            ["method", "code"],
            registry=registry,
        )
        self.requests_in_flight = Gauge("leeway_requests_in_flight", "Requests under way.", registry=registry)
        self.requests_waiting = Gauge(
            "leeway_requests_waiting", "Calls that wait for a thread of the gRPC server.", registry=registry
        )
        self.requests_refused = Counter(
            "leeway_requests_refused_total",
            "Calls refused because too much is asked: queue_full, too_late (for their deadline), rate_limited.",
            ["method", "reason"],
            registry=registry,
        )
        self.requests_degraded = Counter(
            "leeway_requests_degraded_total",
            "Calls answered with less effort because many waited: alone (no policy looked on), overload (fallback).",
            ["method", "step"],
            registry=registry,
        )
        self.reports = Counter("leeway_reports_total", "Outcomes taken from clients over gRPC.", registry=registry)
        self.policy_swaps = Counter(
            "leeway_policy_swaps_total", "Policies taken into service.", _POINT, registry=registry
        )
        self.policy_load_errors = Counter(
            "leeway_policy_load_errors_total",
            "Policies that could not be taken into service; the one before goes on serving.",
            _POINT,
            registry=registry,
        )
        self.policy_generation = Gauge(
            "leeway_policy_generation", "Generation of the policy that serves.", _POINT, registry=registry
        )
        self.policy_created = Gauge(
            "leeway_policy_created_timestamp_seconds",
            "When the policy that serves was made, in seconds since 1970.",
            _POINT,
            registry=registry,
        )
        self.policy_learned = Gauge(
            "leeway_policy_learned_feedback",
            "Feedbacks that the policy that serves has learned.",
            _POINT,
            registry=registry,
        )
        self.log_append_errors = Counter(
            "leeway_log_append_errors_total", "Writes that the log refused.", registry=registry
        )
        self.log_queue = Gauge(
            "leeway_log_queue_records", "Records that wait to be written to the log.", registry=registry
        )
        self.spool_records = Gauge(
            "leeway_spool_records", "Records that wait on the local disk for the cluster.", registry=registry
        )
        self.spool_bytes = Gauge(
            "leeway_spool_bytes", "Bytes of the local disk that the spool uses of its limit.", registry=registry
        )
        self.spool_limit = Gauge(
            "leeway_spool_limit_bytes", "Bytes that the spool may use; 0 where there is no spool.", registry=registry
        )
        self.spool_age = Gauge(
            "leeway_spool_oldest_age_seconds",
            "Age of the oldest decision that waits on the local disk; 0 while none does.",
            registry=registry,
        )
        self.shipped = Counter(
            "leeway_shipped_records_total", "Records that the cluster has taken from this process.", registry=registry
        )
        self.shipping_errors = Counter(
            "leeway_shipping_errors_total", "Attempts to reach the cluster that failed.", registry=registry
        )
        for method in METHODS:
            for refusal in ("queue_full", "too_late", "rate_limited"):
                self.requests_refused.labels(method, refusal)
        for method in DECIDING:
            for step in ("alone", "overload"):
                self.requests_degraded.labels(method, step)
        for point in decision_points:
            for reason in FallbackReason.values():
                self.decisions.labels(point, fallback_name(reason))
            for metric in (
                self.decisions_unrecorded,
                self.callers_decisions,
                self.apprentice_compared,
                self.apprentice_agreed,
                self.decision_duration,
                self.propensity,
                self.policy_swaps,
                self.policy_load_errors,
                self.policy_generation,
                self.policy_created,
                self.policy_learned,
            ):
                metric.labels(point)


class PipelineMetrics:
    """What monitors, learner and archive count.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    decision_points
        Names of the configured decision points.
    """

    def __init__(self, registry: CollectorRegistry, decision_points: Iterable[str]) -> None:
        self.reward_mean = Gauge(
            "leeway_reward_mean",
            f"Mean reward of the last {REWARD_WINDOW} feedbacks seen by this process; NaN before the first.",
            _POINT,
            registry=registry,
        )
        self.reward_error = Gauge(
            "leeway_reward_standard_error",
            "Standard error of that mean, taking feedbacks as independent; NaN below two.",
            _POINT,
            registry=registry,
        )
        self.run_length = Gauge(
            "leeway_reward_monitor_run_length",
            "Feedbacks since the last change of the reward.",
            _POINT,
            registry=registry,
        )
        self.alarms = Counter(
            "leeway_alarms_total",
            "Changes that monitors reported, by where the mean went.",
            ["decision_point", "monitor", "direction"],
            registry=registry,
        )
        self.retraining_requests = Counter(
            "leeway_retraining_requests_total", "Alarms that called for retraining.", _POINT, registry=registry
        )
        self.generation_reward = Gauge(
            "leeway_generation_reward_mean", "Mean reward of the acting generation so far.", _POINT, registry=registry
        )
        self.generation_entropy = Gauge(
            "leeway_generation_entropy_nats",
            "Mean entropy of the action probabilities of the acting generation so far.",
            _POINT,
            registry=registry,
        )
        self.generation_positives = Gauge(
            "leeway_generation_positives_ratio",
            "Share of feedback of the acting generation with a reward above the middle of its range.",
            _POINT,
            registry=registry,
        )
        self.learned = Counter(
            "leeway_learner_feedback_total", "Feedbacks that the online learner has learned.", _POINT, registry=registry
        )
        self.last_learned = Gauge(
            "leeway_learner_last_learned_timestamp_seconds",
            "When the online learner last learned, in seconds since 1970; 0 before the first time.",
            _POINT,
            registry=registry,
        )
        self.archived = Counter("leeway_archive_rows_total", "Rows written to the archive.", _POINT, registry=registry)
        self.streams = Gauge(
            "leeway_monitor_streams", "Streams that a monitor watches now.", _MONITOR, registry=registry
        )
        self.divergence = Gauge(
            "leeway_monitor_divergence",
            "Jensen-Shannon distance of the latest block of observations from the reference, the greatest of the "
            "monitor's streams; 0 before the first block.",
            _MONITOR,
            registry=registry,
        )
        self.runaway = Gauge(
            "leeway_monitor_runaway_streams",
            "Streams whose distance from the reference grows and shows no restoring force.",
            _MONITOR,
            registry=registry,
        )
        self.audits = Counter(
            "leeway_propensity_audits_total",
            "Decisions recomputed from their policies, by whether they were the same.",
            ["decision_point", "result"],
            registry=registry,
        )
        self._rewards: dict[str, deque[float]] = {}
        for point in decision_points:
            window = self._rewards[point] = deque(maxlen=REWARD_WINDOW)
            self.reward_mean.labels(point).set_function(partial(_mean, window))
            self.reward_error.labels(point).set_function(partial(_standard_error, window))
            for monitor in ("reward", *STREAM_MONITORS, "propensity"):
                for direction in (DIRECTION_UP, DIRECTION_DOWN):
                    self.alarms.labels(point, monitor, _direction(direction))
            for monitor in STREAM_MONITORS:
                for gauge in (self.streams, self.divergence, self.runaway):
                    gauge.labels(point, monitor)
            for result in ("same", "different"):
                self.audits.labels(point, result)
            for metric in (self.run_length, self.retraining_requests, self.learned, self.last_learned, self.archived):
                metric.labels(point)

    def observe_reward(self, decision_point: str, reward: float) -> None:
        """Take the next reward of a decision point into its mean."""
        self._rewards[decision_point].append(reward)

    def observe_alarm(self, alarm: Alarm) -> None:
        """Count an alarm, and the retraining that it calls for."""
        self.alarms.labels(alarm.decision_point, alarm.monitor, _direction(alarm.direction)).inc()
        if alarm.calls_for_retraining:
            self.retraining_requests.labels(alarm.decision_point).inc()

    def observe_divergences(self, decision_point: str, divergences: Mapping[str, Sequence[float] | FloatArray]) -> None:
        """Show how far the streams of a decision point are from their references, and whether they run away.

        Parameters
        ----------
        decision_point
            Its name.
        divergences
            Of each stream, named as by ``PointWatch.divergences``, those of the latest blocks.
        """
        for monitor in STREAM_MONITORS:
            mine = [series for key, series in divergences.items() if key.partition(":")[0] == monitor]
            self.streams.labels(decision_point, monitor).set(len(mine))
            latest = max((float(series[-1]) for series in mine if len(series)), default=0.0)
            self.divergence.labels(decision_point, monitor).set(latest)
            runaway = sum(fit(series).course is Course.RUNAWAY for series in mine)
            self.runaway.labels(decision_point, monitor).set(runaway)

    def observe_generation(self, acting: GenerationStatistics) -> None:
        """Show the statistics of the generation that acts."""
        self.generation_reward.labels(acting.decision_point).set(mean_reward(acting))
        self.generation_entropy.labels(acting.decision_point).set(mean_entropy(acting))
        self.generation_positives.labels(acting.decision_point).set(positive_share(acting))


def _mean(window: deque[float]) -> float:
    rewards = window.copy()  # in one step: another thread may be adding to it
    return fsum(rewards) / len(rewards) if rewards else nan


def _standard_error(window: deque[float]) -> float:
    rewards = window.copy()
    return stdev(rewards) / sqrt(len(rewards)) if len(rewards) > 1 else nan


def _direction(direction: Direction.ValueType) -> str:
    return Direction.Name(direction).removeprefix("DIRECTION_").lower()
