"""Three changes in the running service: each is told by its own monitor, and what is configured follows."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.api.leeway.v1 import service_pb2
from engine.client import Candidate, Decided, LeewayClient, decide_request
from engine.policy import Policy
from engine.records import Alarm, Generation
from engine.store import PolicyStore
from monitoring.reactions import names
from streaming.holds import read_alarms, read_holds
from streaming.opening import open_log
from streaming.retraining import read_generations
from tests.integration.service import Service, eventually, running, settings

MONITORS = {"warm_up": 300, "settle": 600, "feedbacks_per_month": 1_000_000, "max_per_second": 1_000_000}
#: The mean reward of the actions, whatever the context.
REWARDS = {"a": 0.8, "b": 0.6, "c": 0.7}
#: Decisions until the policy has learned; until the change, enough for the reference of what is judged by the scores,
#: which begins after those that settle; and after it.
LEARNED, STEADY, CHANGED = 600, 1_400, 400


def point(**more: Any) -> dict[str, Any]:
    return {
        "context": {"basket": {"type": "number"}, "country": {"type": "text", "buckets": 8}},
        "reward": {"window": "1500ms", "grace": "200ms", "aggregation": "first"},
        "policy": {"publish_interval": "200ms"},
        "retraining": {"enabled": False},
        **more,
    }


#: A decision point for each change, named after what changes.
POINTS = {
    "rewards": point(
        retraining={"min_events": 300, "oracles": ["configured"], "gate": {"min_events": 50}},
        monitors={**MONITORS, "reward": {"reactions": ["retrain", "explore"]}},
    ),
    "baskets": point(monitors={**MONITORS, "features": {"reactions": ["hold_promotion"]}}),
    "masks": point(monitors={**MONITORS, "candidates": {"reactions": ["discount_learner"]}}),
}


def send(client: LeewayClient, name: str, first: int, count: int, *, changed: bool) -> None:
    """Ask for decisions and report their rewards; the ids are fixed, and so is all chance."""
    rng = np.random.default_rng([7, len(name), first])
    moved = 2.0 if changed and name == "baskets" else 0.0
    worth = 0.4 if changed and name == "rewards" else 1.0
    masked = 0.8 if changed and name == "masks" else 0.1
    for begin in range(first, first + count, 100):
        requests, asked_ms = [], time.time_ns() // 1_000_000
        for number in range(begin, begin + 100):
            context: dict[str, float | str] = {
                "basket": moved + float(rng.normal()),
                "country": str(rng.choice(["NL", "DE"])),
            }
            actions = [Candidate("a", excluded=bool(rng.random() < masked)), Candidate("b"), Candidate("c")]
            requests.append(decide_request(name, context, actions, f"{name}-{number}"))
        # What happens after a decision takes so long, however busy this machine is.
        delays, outcomes = rng.integers(50, 1_250, 100), []
        for decided, u, delay in zip(client.decide_batch(requests), rng.random(100), delays.tolist(), strict=True):
            assert isinstance(decided, Decided)
            value = float(u < worth * REWARDS[decided.action])
            outcomes.append(
                service_pb2.ReportRequest(
                    decision_point=name,
                    decision_id=decided.decision_id,
                    outcome_id=decided.decision_id,
                    value=value,
                    time_ms=asked_ms + delay,
                )
            )
        client.report_batch(outcomes)


def alarms(service: Service, name: str, monitor: str = "") -> list[Alarm]:
    """Return the alarms of a decision point, or of one of its monitors, without what the policy itself explains."""
    with contextlib.closing(open_log(service.config)) as log:
        mine = [alarm for alarm in read_alarms(log) if alarm.decision_point == name and not alarm.explained]
    return [alarm for alarm in mine if monitor in ("", alarm.monitor)]


def policies(service: Service, name: str) -> list[Policy]:
    """Return the policies on disk, oldest first."""
    store = PolicyStore(service.config.policy_dir)
    return [store.load(name, version) for version in store.versions(name)]


def acting(service: Service, name: str) -> Policy:
    """Return the policy that serves now."""
    store = PolicyStore(service.config.policy_dir)
    version = store.current(name)
    assert version is not None
    return store.load(name, version)


def all_learned(service: Service, name: str, count: int) -> bool:
    return acting(service, name).learned == count


def retrained(service: Service, name: str) -> list[Generation]:
    """Return the trained policies of a decision point."""
    with contextlib.closing(open_log(service.config)) as log:
        return [entry for entry in read_generations(log) if entry.decision_point == name]


def held(service: Service, name: str) -> list[str]:
    """Return the monitors whose alarms hold the promotions of a decision point."""
    with contextlib.closing(open_log(service.config)) as log:
        return [alarm.monitor for alarm in read_holds(log).of(name)]


def change_ms(service: Service, name: str) -> tuple[int, int]:
    """Return the times of the last decision before the change and of the first one after it."""
    times = {decision.decision_id: decision.time_ms for decision in service.decisions()}
    return times[f"{name}-{STEADY - 1}"], times[f"{name}-{STEADY}"]


def test_each_change_raises_its_monitor_and_no_other_and_its_reaction_follows(tmp_path: Path) -> None:
    with running(tmp_path, settings(POINTS)) as service, service.client() as client:
        for begin, end in ((0, LEARNED), (LEARNED, STEADY)):
            for name in POINTS:
                send(client, name, begin, end - begin, changed=False)
            for name in POINTS:
                eventually(partial(all_learned, service, name, end), "the policy of all feedback")
        for name in POINTS:
            assert alarms(service, name) == []
            assert acting(service, name).uniform_share == 0.0
        for name in POINTS:
            send(client, name, STEADY, CHANGED, changed=True)
        for name in POINTS:
            service.settled(name)

        # The reward: explored until a policy is trained on what came since the change.
        (first,) = eventually(partial(alarms, service, "rewards", "reward"), "the alarm of the reward")
        assert names(first) == ["retrain", "explore"]
        (trained, *_) = eventually(partial(retrained, service, "rewards"), "a policy trained on the change")
        assert (trained.reason, trained.window_start_ms) == ("drift", first.change_ms)
        assert CHANGED - 100 <= trained.rows <= CHANGED + 200  # a hundred decisions are made at once
        shares = {acting.uniform_share for acting in policies(service, "rewards")}
        assert max(shares) > 0.3
        seen = alarms(service, "rewards")
        told = [alarm for alarm in seen if not alarm.echo_of]
        assert told == [first]
        assert {(alarm.echo_of, alarm.incident) for alarm in seen} <= {
            ("", first.alarm_id),
            (first.alarm_id, first.alarm_id),
        }
        last_ms, next_ms = change_ms(service, "rewards")
        assert all(last_ms - 1_000 <= alarm.change_ms <= next_ms + 1_000 for alarm in seen)
        assert [alarm.monitor for alarm in seen if alarm.reactions] == ["reward"]
        assert service.metric("work", "leeway_drift_alarms_total", decision_point="rewards", monitor="residual") == 0

        # A feature, on which no reward depends: promotions are held.
        (first, *more) = eventually(partial(alarms, service, "baskets"), "the alarm of the feature")
        assert {(alarm.monitor, alarm.stream) for alarm in (first, *more)} == {("features", "basket")}
        assert names(first) == ["hold_promotion"]
        assert held(service, "baskets")[0] == "features"
        assert held(service, "rewards") == held(service, "masks") == []

        # What clients offer, and with it what is chosen: what was learned counts for a tenth.
        (first, *more) = eventually(partial(alarms, service, "masks"), "the alarm of the candidates")
        assert {alarm.monitor for alarm in (first, *more)} == {"candidates"}
        assert names(first) == ["discount_learner"]
        eventually(lambda: acting(service, "masks").learned < STEADY // 2, "a discounted learner")
        # The distribution of the actions has moved, as the logged probabilities say.
        chosen = {decision.decision_id: decision.chosen for decision in service.decisions()}
        first_action = np.array([chosen[f"masks-{number}"] == 0 for number in range(STEADY + CHANGED)])
        assert first_action[LEARNED:STEADY].mean() - first_action[STEADY:].mean() > 0.2
        assert {policy.uniform_share for name in ("baskets", "masks") for policy in policies(service, name)} == {0.0}
        assert service.metric("work", "leeway_propensity_audits_total", result="different") == 0
        assert service.stop() == 0
