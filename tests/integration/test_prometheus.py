"""A real Prometheus scrapes the real service under traffic: every panel and every rule has something to show."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.api.leeway.v1 import service_pb2
from engine.client import Decided, LeewayClient, decide_request
from monitoring.dashboards.boards import FOLDER
from monitoring.dashboards.expressions import Source, interpolated, of_dashboard, of_rules, operands
from monitoring.dashboards.preview import Prometheus, draw
from tests.integration.service import Service, eventually, free_port, running, settings
from tests.prometheus import RULES, Server, binary, scraping

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

FILES = sorted(FOLDER.glob("*.json"))
POINT: dict[str, Any] = {
    "context": {"basket": {"type": "number"}},
    "reward": {"window": "1s", "grace": "200ms", "aggregation": "first"},
    "policy": {"publish_interval": "200ms"},
    "monitors": {"warm_up": 200, "settle": 200, "feedbacks_per_month": 1_000_000, "max_per_second": 1_000_000},
    "retraining": {"every": "10s", "min_events": 200, "oracles": ["configured"], "gate": {"min_events": 50}},
}
#: A training on a busy machine takes minutes, until then its figures have no value.
PATIENCE_S = 600.0
REWARDS = {"a": 0.8, "b": 0.6, "c": 0.3}
#: What is not of the service: the textfile collector of another program.
ABSENT = {"LeewayScheduledJobOverdue"}
#: What this traffic must show, and what must not be shown: 0 is the least of a counter.
SHOWN = {
    "sum(rate(leeway_decisions_total[15s]))": lambda value: value > 1.0,
    "max(leeway_reward_mean)": lambda value: 0.2 < value < 0.95,
    "max(leeway_reward_standard_error)": lambda value: 0.0 < value < 0.2,
    "rate(leeway_propensity_entropy_nats_total[15s]) / rate(leeway_monitor_feedback_total[15s])": lambda value: (
        0.0 < value <= np.log(3)
    ),
    "sum(leeway_trainings_total{reason='schedule'})": lambda value: value >= 1.0,
    "max(leeway_training_timestamp_seconds)": lambda value: value > 1e9,
    "max(leeway_gate_difference_high - leeway_gate_difference_low)": lambda value: value > 0.0,
    "histogram_quantile(0.5, sum by (le) (leeway_outcome_delay_seconds_bucket))": lambda value: 0.0 < value < 1.0,
    "max(leeway_monitor_run_length{monitor='features'})": lambda value: value > 0.0,
    "min(leeway_disk_free_bytes / leeway_disk_size_bytes)": lambda value: 0.0 < value < 1.0,
    "sum(leeway_propensity_audits_total{result='different'})": lambda value: value == 0.0,
    "sum(leeway_decisions_unrecorded_total)": lambda value: value == 0.0,
    "min(leeway_role_up)": lambda value: value == 1.0,
    "count(up == 1)": lambda value: value == 2.0,
}


def send(client: LeewayClient, rng: np.random.Generator, first: int, count: int = 50) -> None:
    """Ask for decisions, and report the outcome of most."""
    requests = [
        decide_request("offers", {"basket": float(rng.normal())}, list(REWARDS), f"offers-{number}")
        for number in range(first, first + count)
    ]
    now_ms, outcomes = time.time_ns() // 1_000_000, []
    for decided in client.decide_batch(requests):
        assert isinstance(decided, Decided)
        if rng.random() < 0.9:
            outcomes.append(
                service_pb2.ReportRequest(
                    decision_point="offers",
                    decision_id=decided.decision_id,
                    outcome_id=decided.decision_id,
                    value=float(rng.random() < REWARDS[decided.action]),
                    time_ms=now_ms + int(rng.integers(50, 900)),
                )
            )
    client.report_batch(outcomes)
    client.decide("offers", {"basket": 0.0}, list(REWARDS))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    binary("prometheus")
    with running(tmp_path_factory.mktemp("service"), settings({"offers": POINT})) as found:
        yield found


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus that scrapes the service while requests come in, until the last test has ended."""
    ports = {role: service.facts(role) for role in ("serve", "work")}
    targets = {f"leeway-{role}": f"127.0.0.1:{facts['metrics_port']}" for role, facts in ports.items() if facts}
    stop, failed = threading.Event(), []

    def traffic() -> None:
        rng, number = np.random.default_rng(5), 0
        try:
            with service.client() as client:
                while not stop.wait(0.3):
                    send(client, rng, number)
                    number += 50
        except Exception as error:  # told by the fixture, on the thread of the tests
            failed.append(error)

    sender = threading.Thread(target=traffic)
    with scraping(tmp_path_factory.mktemp("prometheus"), free_port(), targets) as server:
        sender.start()
        try:
            yield server
        finally:
            stop.set()
            sender.join()
    assert failed == []


def without(sources: list[Source], server: Server) -> list[str]:
    """Return the places whose expressions have no result."""
    return [
        f"{source.place}: {part}"
        for source in sources
        for part in operands(source.expr)
        if not server.query(interpolated(part, "15s", {"job": "leeway.*"}))
    ]


def test_no_panel_and_no_rule_is_empty(prometheus: Server) -> None:
    sources = [source for path in FILES for source in of_dashboard(path)]
    sources += [source for path in RULES for source in of_rules(path) if source.place not in ABSENT]
    left: list[str] = []

    def complete() -> bool:
        left[:] = without(sources, prometheus)
        return not left

    try:
        eventually(complete, "every expression to have a result", PATIENCE_S)
    except pytest.fail.Exception:
        pytest.fail(f"without a result: {left}")


def test_the_figures_are_those_of_the_traffic(prometheus: Server) -> None:
    def wrong() -> dict[str, Any]:
        found = {expr: [float(each["value"][1]) for each in prometheus.query(expr)] for expr in SHOWN}
        return {expr: values for expr, values in found.items() if not (values and all(map(SHOWN[expr], values)))}

    try:
        eventually(lambda: not wrong(), "the figures", PATIENCE_S)
    except pytest.fail.Exception:
        pytest.fail(f"not as they should be: {wrong()}")


def test_prometheus_reads_the_rules_and_none_fails(prometheus: Server) -> None:
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(1 for path in RULES for _ in of_rules(path))
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}


def test_a_misspelt_metric_would_be_found(prometheus: Server) -> None:
    assert without([Source("panel", "rate(leeway_decisons_total[15s])")], prometheus) != []


def test_every_dashboard_can_be_drawn(prometheus: Server, tmp_path: Path) -> None:
    drawer = Prometheus(prometheus.url, time.time() - 30.0, time.time(), "15s")
    for path in FILES:
        draw(json.loads(path.read_text()), drawer, tmp_path / f"{path.stem}.png")
        assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000
