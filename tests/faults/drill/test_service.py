"""Faults of one running service on one machine, one after the other, with a Prometheus beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engine.api.leeway.v1 import service_pb2
from engine.client import Decided, LeewayClient, decide_request
from engine.records import Decision, Outcome
from engine.store import PolicyStore
from streaming.opening import open_log
from streaming.wire import message_of
from tests.faults.drill.alarm import Watch, drills, metrics_ports, targets_of, watching
from tests.integration.service import Service, eventually, leeway, running, settings
from tests.prometheus import binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

POINT = "offers"
OFFERS: dict[str, Any] = {
    "context": {"basket": {"type": "number"}},
    "actions": {"max": 100_000},
    "reward": {"window": "1s", "grace": "200ms", "aggregation": "first"},
    "policy": {"publish_interval": "200ms"},
    "retraining": {"enabled": False},
    "monitors": {
        "warm_up": 300,
        "feedbacks_per_month": 10_000_000,
        "max_per_second": 1_000_000,
        "features": {"reactions": ["hold_promotion"]},
        "propensity": {"share": 1.0},
    },
}


@dataclass
class Drilled:
    """The service, its Prometheus and a client; ids of decisions count up."""

    service: Service
    watch: Watch
    sent: int = 0

    def send(self, count: int, *, basket: float = 0.0, rewarded: bool = True) -> None:
        """Ask for decisions; report what came of them unless the caller is broken."""
        with self.service.client() as client:
            for _ in range(0, count, 50):
                self._send_50(client, basket, rewarded)

    def _send_50(self, client: LeewayClient, basket: float, rewarded: bool) -> None:
        rng = np.random.default_rng(self.sent)
        numbers = range(self.sent, self.sent + 50)
        self.sent += 50
        now_ms = time.time_ns() // 1_000_000
        requests = [
            decide_request(POINT, {"basket": basket + float(rng.normal())}, ["a", "b"], f"d{number}")
            for number in numbers
        ]
        answers = client.decide_batch(requests)
        if rewarded:
            client.report_batch(
                [
                    service_pb2.ReportRequest(
                        decision_point=POINT,
                        decision_id=answer.decision_id,
                        outcome_id=answer.decision_id,
                        value=float(rng.random() < 0.5),
                        time_ms=now_ms + 100,
                    )
                    for answer in answers
                    if isinstance(answer, Decided)
                ]
            )

    def command(self, *words: str) -> str:
        """Run a command on it; return what it prints."""
        done = leeway(*words, "--config", self.service.path)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drilled]:
    binary("prometheus")
    directory = tmp_path_factory.mktemp("drill")
    metrics = metrics_ports()
    config = {**settings({POINT: OFFERS}), "metrics": metrics, "log": {"retention": "1d"}}
    with running(directory, config) as service, watching(directory, targets_of(metrics)) as watch:
        found = Drilled(service, watch)
        found.send(1_000)
        service.settled()
        assert watch.firing() == {}
        yield found


@drills("LeewayNoRewardJoined")
def test_a_caller_that_reports_nothing_is_corrected(drill: Drilled) -> None:
    drill.send(100, rewarded=False)
    began = time.monotonic()
    while "LeewayNoRewardJoined" not in drill.watch.firing():
        drill.send(50, rewarded=False)
        time.sleep(1.0)
        assert time.monotonic() - began < 400
    # The caller is corrected.
    while "LeewayNoRewardJoined" in drill.watch.firing():
        drill.send(50)
        time.sleep(1.0)
        assert time.monotonic() - began < 800


@drills("LeewayDeadLetters")
def test_dead_letters_are_listed_and_replayed_once_the_writer_is_mended(drill: Drilled) -> None:
    drill.watch.quiet("LeewayDeadLetters")
    with closing(open_log(drill.service.config)) as log:
        stray = Outcome(decision_id="not-yet", outcome_id="o", value=1.0, time_ms=time.time_ns() // 1_000_000)
        log.append([message_of(stray)])
    drill.watch.fires("LeewayDeadLetters")
    assert "not-yet" in drill.command("dlq", "list")
    with drill.service.client() as client:  # the writer is mended: the decision is there now
        client.decide(POINT, {"basket": 0.0}, ["a", "b"], "not-yet")
    assert "replayed 1 to outcomes" in drill.command("dlq", "replay", "--all")
    drill.watch.ends("LeewayDeadLetters")


@drills("LeewayDrift", "LeewayPromotionHeld")
def test_a_drift_is_explained_and_acknowledged(drill: Drilled) -> None:
    drill.watch.ends("LeewayDrift")  # the drill before may have raised alarms of the reward
    drill.watch.quiet("LeewayPromotionHeld")
    drill.send(500, basket=2.0)
    drill.watch.fires("LeewayDrift", "LeewayPromotionHeld")
    found = json.loads(drill.command("drift", "list", "--json"))["alarms"]
    mine = next(alarm for alarm in found if alarm["stream"] == "basket")
    assert "basket" in drill.command("drift", "explain", mine["alarm_id"])
    drill.watch.ends("LeewayDrift")
    for alarm in json.loads(drill.command("drift", "list", "--json"))["alarms"]:
        drill.command("drift", "ack", alarm["alarm_id"])
    drill.watch.ends("LeewayPromotionHeld")


@drills("LeewayPolicyNotLoaded")
def test_a_damaged_policy_is_named_and_replaced_by_the_next(drill: Drilled) -> None:
    drill.watch.quiet("LeewayPolicyNotLoaded")
    store = PolicyStore(drill.service.config.policy_dir)
    store.set_current(POINT, "g7.7-0123abcd")  # no such file
    drill.watch.fires("LeewayPolicyNotLoaded")
    assert "g7.7-0123abcd" in drill.service.messages()  # `leeway status` tells until the next one serves
    drill.send(100)  # the learner publishes the next one
    eventually(lambda: store.current(POINT) != "g7.7-0123abcd", "the next policy", 200)
    eventually(lambda: drill.service.status().policy_error == "", "the next policy to serve", 200)
    drill.watch.ends("LeewayPolicyNotLoaded")


@drills("LeewayWrongPropensity")
def test_a_record_with_another_probability_is_found_and_named(drill: Drilled) -> None:
    drill.watch.quiet("LeewayWrongPropensity")
    honest = drill.service.decisions()[-1]
    forged = Decision.FromString(honest.SerializeToString())
    forged.decision_id, forged.time_ms = "forged", time.time_ns() // 1_000_000
    forged.probabilities[:] = [0.9, 0.1] if honest.probabilities[0] < 0.8 else [0.1, 0.9]
    with closing(open_log(drill.service.config)) as log:
        log.append([message_of(forged)])
    drill.watch.fires("LeewayWrongPropensity")
    told = leeway("replay", "--config", drill.service.path)
    assert told.returncode != 0
    assert "forged" in told.stdout + told.stderr
    drill.watch.ends("LeewayWrongPropensity")  # no other writer is left


@drills("LeewayRoleDown", "LeewayLag")
def test_a_role_that_fails_says_why_and_goes_on_when_that_is_mended(drill: Drilled) -> None:
    drill.watch.quiet("LeewayRoleDown", "LeewayLag")
    archive = drill.service.config.archive_dir
    aside = archive.with_name("aside")
    archive.rename(aside)
    archive.write_text("somebody's file in the place of the archive")
    drill.send(100)
    drill.watch.fires("LeewayRoleDown", "LeewayLag")
    assert {labels["role"] for labels in drill.watch.firing()["LeewayRoleDown"]} == {"archive"}
    assert {labels["role"] for labels in drill.watch.firing()["LeewayLag"]} == {"archive"}
    assert str(archive) in drill.service.messages()  # which names the error
    archive.unlink()
    aside.rename(archive)
    drill.watch.ends("LeewayRoleDown", "LeewayLag")


@drills("LeewayLatencyBudgetBurn")
def test_too_many_actions_make_decisions_slow_and_fewer_do_not(drill: Drilled) -> None:
    many = [f"action-{number}" for number in range(20_000)]
    with drill.service.client(timeout_s=120.0) as client:
        began = time.monotonic()
        while len(drill.watch.firing().get("LeewayLatencyBudgetBurn", [])) < 3:  # of each urgency
            client.decide(POINT, {"basket": 0.0}, many)
            assert time.monotonic() - began < 400
        while "LeewayLatencyBudgetBurn" in drill.watch.firing():
            client.decide_batch([decide_request(POINT, {"basket": 0.0}, ["a", "b"]) for _ in range(50)])
            assert time.monotonic() - began < 800


@drills("LeewayDown")
def test_what_ended_is_started_again(drill: Drilled) -> None:
    drill.watch.quiet("LeewayDown")
    drill.service.kill()
    drill.watch.fires("LeewayDown")
    drill.service.start()
    drill.watch.ends("LeewayDown")
    drill.send(50)
    drill.service.settled()
