from __future__ import annotations

import math
import re
import subprocess
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engine.errors import ConfigError
from engine.records import (
    DIRECTION_DOWN,
    DIRECTION_UP,
    Alarm,
    Decision,
    Feedback,
    Generation,
    GenerationStatistics,
    JoinAccounting,
)
from monitoring.disk_metrics import DiskCollector
from monitoring.exposition import serve_metrics
from monitoring.generation_metrics import RECENT, GenerationCollector, LineageMetrics
from monitoring.merged_metrics import CrewMetrics
from monitoring.metric_page import PAGE, page, stored_name
from monitoring.metrics import REWARD_WINDOW, PipelineMetrics, ServingMetrics
from monitoring.oscillation import Oscillation
from monitoring.role_metrics import JoinCollector, JoinMemberCollector, RoleMetrics
from monitoring.stage_histogram import StageHistogram
from monitoring.watch_metrics import WatchMetrics
from tests.prometheus import binary

POINTS = ["layout", "offers"]
ROLES = ["join", "learner"]


class Member:
    """A member of the join that owns two partitions, of which one has seen nothing yet."""

    commits, restores, skewed = 7, 2, 1

    def watermarks(self) -> dict[int, int]:
        return {1: 60_000, 3: 0}

    def pending(self) -> int:
        return 5


class Stages:
    """Tallies of one stage: one decision of 2 us, one of 2 s."""

    def cumulative(self, stage: str) -> list[int]:
        return [0, 1, 2]

    def seconds(self, stage: str) -> float:
        return 2.000002


class Exposed:
    """All metrics on one registry, with a book of the join that a test may change."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.book = {point: JoinAccounting() for point in POINTS}
        self.serving = ServingMetrics(self.registry, POINTS)
        self.pipeline = PipelineMetrics(self.registry, POINTS)
        self.watch = WatchMetrics(self.registry, POINTS)
        self.generations = GenerationCollector(POINTS)
        self.lineage = LineageMetrics(self.registry, {"layout": None, "offers": 3_600.0}, 1_000.0)
        self.roles = RoleMetrics(self.registry, ROLES)
        self.registry.register(StageHistogram(Stages(), ["score"], [1e-6, 1e-3]))
        CrewMetrics(self.registry)
        self.member: Member | None = None
        self.registry.register(JoinCollector(lambda: self.book))
        self.registry.register(JoinMemberCollector(lambda: self.member, lambda: 62_500))
        self.registry.register(self.generations)
        self.registry.register(DiskCollector(PAGE.parent / "not-there-yet"))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        """Metric names as Prometheus stores them."""
        return set(map(stored_name, self.registry.collect()))


@pytest.fixture
def exposed() -> Exposed:
    return Exposed()


def test_known_series_exist_from_the_start_with_zero(exposed: Exposed) -> None:
    for point in POINTS:
        for name in (
            "leeway_policy_swaps_total",
            "leeway_policy_load_errors_total",
            "leeway_decision_duration_seconds_count",
            "leeway_retraining_requests_total",
            "leeway_archive_rows_total",
            "leeway_learner_feedback_total",
            "leeway_join_dead_letters_total",
            "leeway_join_pending_decisions",
        ):
            assert exposed.value(name, decision_point=point) == 0.0, name
        for fallback in ("none", "oracle_failed", "deadline", "client", "overload"):
            assert exposed.value("leeway_decisions_total", decision_point=point, fallback=fallback) == 0.0
        for direction in ("up", "down"):
            assert (
                exposed.value("leeway_alarms_total", decision_point=point, monitor="reward", direction=direction) == 0
            )
    for role in ROLES:
        assert exposed.value("leeway_role_errors_total", role=role) == 0.0
        assert exposed.value("leeway_role_up", role=role) == 0.0
        assert exposed.value("leeway_rebalances_total", role=role) == 0.0
        assert exposed.value("leeway_transaction_aborts_total", role=role) == 0.0
    assert exposed.value("leeway_log_append_errors_total") == 0.0


def test_join_accounting_is_read_at_the_scrape(exposed: Exposed) -> None:
    exposed.book["offers"] = JoinAccounting(
        decisions=10,
        feedback=7,
        defaulted=2,
        pending=3,
        duplicate_decisions=1,
        duplicate_outcomes=4,
        late_outcomes=5,
        surplus_outcomes=6,
        dead_letters=8,
        watermark_ms=1_500,
    )
    shown = {
        name: exposed.value(f"leeway_join_{name}", decision_point="offers")
        for name in ("decisions_total", "feedback_total", "defaulted_total", "pending_decisions", "late_outcomes_total")
    }
    assert shown == {
        "decisions_total": 10,
        "feedback_total": 7,
        "defaulted_total": 2,
        "pending_decisions": 3,
        "late_outcomes_total": 5,
    }
    assert exposed.value("leeway_join_duplicate_decisions_total", decision_point="offers") == 1
    assert exposed.value("leeway_join_duplicate_outcomes_total", decision_point="offers") == 4
    assert exposed.value("leeway_join_surplus_outcomes_total", decision_point="offers") == 6
    assert exposed.value("leeway_join_dead_letters_total", decision_point="offers") == 8
    assert exposed.value("leeway_join_watermark_timestamp_seconds", decision_point="offers") == 1.5
    assert exposed.value("leeway_join_decisions_total", decision_point="layout") == 0


def test_registering_does_not_read_the_book() -> None:
    def unavailable() -> dict[str, JoinAccounting]:
        raise AssertionError("read before the first scrape")

    CollectorRegistry().register(JoinCollector(unavailable))


def test_the_first_dead_letter_of_no_known_point_is_an_increase(exposed: Exposed) -> None:
    name = "leeway_join_dead_letters_total"
    exposed.book = {}
    assert exposed.value(name, decision_point="") is None  # the book was not read yet
    exposed.book = {"offers": JoinAccounting()}
    assert exposed.value(name, decision_point="") == 0
    exposed.book[""] = JoinAccounting(dead_letters=2)
    assert exposed.value(name, decision_point="") == 2


def test_a_member_of_the_join_shows_the_partitions_that_it_has(exposed: Exposed) -> None:
    assert exposed.value("leeway_join_member_pending_decisions") is None
    exposed.member = Member()
    assert exposed.value("leeway_join_watermark_delay_seconds", partition="1") == 2.5
    assert exposed.value("leeway_join_watermark_delay_seconds", partition="3") is None
    assert exposed.value("leeway_join_member_pending_decisions") == 5
    counted = {name: exposed.value(f"leeway_join_{name}_total") for name in ("commits", "restores", "skewed")}
    assert counted == {"commits": 7, "restores": 2, "skewed": 1}


def test_reward_mean_is_over_the_last_rewards(exposed: Exposed) -> None:
    assert math.isnan(exposed.value("leeway_reward_mean", decision_point="offers") or 0.0)
    for _ in range(REWARD_WINDOW):
        exposed.pipeline.observe_reward("offers", 1.0)
    for _ in range(REWARD_WINDOW // 4):
        exposed.pipeline.observe_reward("offers", 0.0)
    assert exposed.value("leeway_reward_mean", decision_point="offers") == 0.75


def test_alarms_and_the_retraining_that_they_call_for(exposed: Exposed) -> None:
    rise = Alarm(decision_point="offers", monitor="reward", direction=DIRECTION_UP)
    fall = Alarm(decision_point="offers", monitor="reward", direction=DIRECTION_DOWN, calls_for_retraining=True)
    for alarm in (rise, rise, fall):
        exposed.pipeline.observe_alarm(alarm)
    labels = {"decision_point": "offers", "monitor": "reward"}
    assert exposed.value("leeway_alarms_total", **labels, direction="up") == 2
    assert exposed.value("leeway_alarms_total", **labels, direction="down") == 1
    assert exposed.value("leeway_retraining_requests_total", decision_point="offers") == 1


def test_acting_generation(exposed: Exposed) -> None:
    exposed.pipeline.observe_generation(
        GenerationStatistics(decision_point="offers", feedback=4, reward_sum=3.0, positives=2, entropy_sum=2.0)
    )
    assert exposed.value("leeway_generation_reward_mean", decision_point="offers") == 0.75
    assert exposed.value("leeway_generation_positives_ratio", decision_point="offers") == 0.5
    assert exposed.value("leeway_generation_entropy_nats", decision_point="offers") == 0.5


def test_the_page_holds_the_table_of_now(exposed: Exposed) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "docs/metrics.md is stale; run: python -m monitoring.metric_page"
    documented = set(re.findall(r"^\| `(leeway_\w+)`", text, re.MULTILINE))
    assert documented == exposed.names()
    for metric in exposed.registry.collect():
        assert metric.documentation.endswith("."), metric.name


def test_documented_labels_are_those_of_the_series(exposed: Exposed) -> None:
    exposed.serving.requests.labels("Decide", "OK").inc()
    exposed.member = Member()
    for lag in (exposed.roles.lag_records, exposed.roles.lag_seconds):
        lag.labels("join", "decisions").set(0)
    exposed.pipeline.observe_generation(GenerationStatistics(decision_point="offers"))
    exposed.generations.observe("offers", [GenerationStatistics(decision_point="offers")])
    rows = re.findall(r"^\| `(leeway_\w+)` \| \w+ \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for metric in exposed.registry.collect():
        name = stored_name(metric)
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        assert documented[name] == labels, name


def test_delay_and_drift_leave_out_what_is_none(exposed: Exposed) -> None:
    decision = Decision(decision_point="offers", time_ms=10_000)
    exposed.watch.observe_feedback(Feedback(decision=decision, reward_time_ms=14_000, outcomes=1))
    exposed.watch.observe_feedback(Feedback(decision=decision, reward_time_ms=70_000, defaulted=True))
    assert exposed.value("leeway_outcome_delay_seconds_count", decision_point="offers") == 1
    assert exposed.value("leeway_outcome_delay_seconds_sum", decision_point="offers") == 4.0
    exposed.watch.observe_alarm(Alarm(decision_point="offers", monitor="reward", explained=True))
    exposed.watch.observe_alarm(Alarm(decision_point="offers", monitor="features"))
    assert exposed.value("leeway_drift_alarms_total", decision_point="offers", monitor="reward") == 0
    assert exposed.value("leeway_drift_alarms_total", decision_point="offers", monitor="features") == 1


def test_the_shortest_run_of_a_monitor_is_shown(exposed: Exposed) -> None:
    exposed.watch.observe_run_lengths("offers", {"features:country": 700, "features:basket": 40, "delay": 300})
    shown = {
        monitor: exposed.value("leeway_monitor_run_length", decision_point="offers", monitor=monitor)
        for monitor in ("features", "delay", "actions")
    }
    assert shown == {"features": 40, "delay": 300, "actions": 0}


def test_standard_error_of_the_mean_reward(exposed: Exposed) -> None:
    exposed.pipeline.observe_reward("offers", 1.0)
    assert math.isnan(exposed.value("leeway_reward_standard_error", decision_point="offers") or 0.0)
    for reward in (0.0, 1.0, 0.0):
        exposed.pipeline.observe_reward("offers", reward)
    # Variance 1/3 of four rewards.
    assert exposed.value("leeway_reward_standard_error", decision_point="offers") == pytest.approx((1 / 12) ** 0.5)


def test_only_the_latest_generations_have_series(exposed: Exposed) -> None:
    acted = [
        GenerationStatistics(generation=g, feedback=4, reward_sum=g, reward_square_sum=g * g, entropy_sum=0.5)
        for g in range(8)
    ]
    exposed.generations.observe("offers", acted)
    shown = [
        exposed.value("leeway_recent_generation_reward_mean", decision_point="offers", generation=str(g))
        for g in range(8)
    ]
    assert shown == [None] * (8 - RECENT) + [g / 4 for g in range(8 - RECENT, 8)]
    assert exposed.value("leeway_monitor_feedback_total", decision_point="offers") == 32
    assert exposed.value("leeway_propensity_entropy_nats_total", decision_point="offers") == 4.0


def test_counters_of_the_books_do_not_go_back(exposed: Exposed) -> None:
    for feedback in (10, 7):  # a role that failed begins again from what it had committed
        exposed.generations.observe("offers", [GenerationStatistics(feedback=feedback, entropy_sum=0.1 * feedback)])
    assert exposed.value("leeway_monitor_feedback_total", decision_point="offers") == 10
    assert exposed.value("leeway_propensity_entropy_nats_total", decision_point="offers") == 1.0


def test_ledger_shows_verdicts_and_when_the_next_training_is_due(exposed: Exposed) -> None:
    def due(point: str) -> float | None:
        return exposed.value("leeway_training_due_timestamp_seconds", decision_point=point)

    assert (due("layout"), due("offers")) == (None, 4_600.0)
    assert math.isnan(exposed.value("leeway_gate_estimate", decision_point="offers") or 0.0)
    judged = {"run_id": "r", "estimate": 0.6, "champion_estimate": 0.5, "difference_low": 0.05, "difference_high": 0.15}
    exposed.lineage.observe(
        Generation(decision_point="offers", reason="drift", trained_ms=5_000_000, promoted=True, **judged)  # type: ignore[arg-type]
    )
    exposed.lineage.observe(Generation(decision_point="offers", reason="schedule", trained_ms=9_000_000))
    exposed.lineage.observe(Generation(decision_point="offers", reason="rollback", trained_ms=9_900_000, promoted=True))
    exposed.lineage.observe(Generation(decision_point="gone", reason="drift"))
    shown = {
        (reason, result): exposed.value("leeway_trainings_total", decision_point="offers", reason=reason, result=result)
        for reason, result in (
            *(("drift", "promoted"), ("drift", "refused"), ("schedule", "refused"), ("rollback", "promoted")),
        )
    }
    assert list(shown.values()) == [1, 0, 1, 1]
    assert exposed.value("leeway_training_timestamp_seconds", decision_point="offers") == 9_000.0
    assert due("offers") == 12_600.0
    # The second was not estimated: what is known of the first stands.
    assert exposed.value("leeway_gate_difference_low", decision_point="offers") == 0.05


def test_oscillation_is_shown_once_it_is_judged(exposed: Exposed) -> None:
    exposed.lineage.observe_oscillation("offers", None, declared=False)
    assert exposed.value("leeway_oscillation_p_value", decision_point="offers") == 1.0
    judged = Oscillation(True, 0.025, 0.001, 0.001, 1.0, 2, 0.03, 0.005, 9)
    exposed.lineage.observe_oscillation("offers", judged, declared=True)
    shown = {
        name: exposed.value(f"leeway_oscillation_{name}", decision_point="offers")
        for name in ("declared", "p_value", "level", "period_generations", "amplitude")
    }
    assert shown == {"declared": 1, "p_value": 0.001, "level": 0.025, "period_generations": 2, "amplitude": 0.03}


def test_disk_is_that_of_a_directory_that_is_still_to_be_made(exposed: Exposed) -> None:
    size, free = exposed.value("leeway_disk_size_bytes"), exposed.value("leeway_disk_free_bytes")
    assert size is not None
    assert free is not None
    assert 0 <= free <= size


def test_promtool_accepts_the_exposition(exposed: Exposed) -> None:
    promtool = binary("promtool")
    exposed.serving.requests.labels("Decide", "OK").inc()
    exposed.roles.lag_records.labels("join", "decisions").set(3)
    exposed.pipeline.observe_reward("offers", 1.0)
    server = serve_metrics(exposed.registry, "127.0.0.1", 0)
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as response:
            page = response.read()
    finally:
        server.close()
    check = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")
    assert b"leeway_decisions_created" not in page


def test_endpoint_serves_and_frees_its_port(exposed: Exposed) -> None:
    first = serve_metrics(exposed.registry, "127.0.0.1", 0)
    try:
        with urlopen(f"http://127.0.0.1:{first.port}/metrics", timeout=10) as response:
            assert b"leeway_decisions_total{" in response.read()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            serve_metrics(exposed.registry, "127.0.0.1", first.port)
    finally:
        first.close()
    second = serve_metrics(exposed.registry, "127.0.0.1", first.port)
    second.close()


def test_two_sides_on_one_registry_keep_apart(exposed: Exposed) -> None:
    """`leeway up` shows both from one registry: no name comes twice."""
    page = generate_latest(exposed.registry).decode()
    types = re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)
    assert len(types) == len(set(types))


def test_the_stages_of_a_decision_are_a_histogram(exposed: Exposed) -> None:
    name = "leeway_decision_stage_seconds"
    buckets = [exposed.value(f"{name}_bucket", stage="score", le=le) for le in ("1e-06", "0.001", "+Inf")]
    assert buckets == [0.0, 1.0, 2.0]
    assert (exposed.value(f"{name}_count", stage="score"), exposed.value(f"{name}_sum", stage="score")) == (2, 2.000002)
