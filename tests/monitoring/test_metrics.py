from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engine.errors import ConfigError
from engine.records import DIRECTION_DOWN, DIRECTION_UP, Alarm, GenerationStatistics, JoinAccounting
from monitoring.exposition import serve_metrics
from monitoring.metrics import REWARD_WINDOW, PipelineMetrics, ServingMetrics
from monitoring.role_metrics import JoinCollector, JoinMemberCollector, RoleMetrics
from monitoring.stage_histogram import StageHistogram

POINTS = ["layout", "offers"]
ROLES = ["join", "learner"]
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


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
        self.roles = RoleMetrics(self.registry, ROLES)
        self.registry.register(StageHistogram(Stages(), ["score"], [1e-6, 1e-3]))
        self.member: Member | None = None
        self.registry.register(JoinCollector(lambda: self.book))
        self.registry.register(JoinMemberCollector(lambda: self.member, lambda: 62_500))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        """Metric names as Prometheus stores them: counters with ``_total``."""
        return {metric.name + ("_total" if metric.type == "counter" else "") for metric in self.registry.collect()}


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
        for fallback in ("none", "oracle_failed", "deadline"):
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


def test_every_metric_is_documented_and_every_documented_one_exists(exposed: Exposed) -> None:
    documented = set(re.findall(r"^\| `(leeway_\w+)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == exposed.names()
    for metric in exposed.registry.collect():
        assert metric.documentation.endswith("."), metric.name


def test_documented_labels_are_those_of_the_series(exposed: Exposed) -> None:
    exposed.serving.requests.labels("Decide", "OK").inc()
    exposed.member = Member()
    for lag in (exposed.roles.lag_records, exposed.roles.lag_seconds):
        lag.labels("join", "decisions").set(0)
    exposed.pipeline.observe_generation(GenerationStatistics(decision_point="offers"))
    rows = re.findall(r"^\| `(leeway_\w+)` \| \w+ \| ([^|]*) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for metric in exposed.registry.collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        assert documented[name] == labels, name


def test_promtool_accepts_the_exposition(exposed: Exposed) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus): the exposition was not checked by it")
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
