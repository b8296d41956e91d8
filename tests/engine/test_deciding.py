"""Many decisions in one matrix are what each would have been alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.config import Challenger, DecisionPoint
from engine.effort import Effort
from engine.errors import InvalidRequest
from engine.features import Encoder
from engine.oracles import LightGBMOracle, LinearOracle, Oracle, make_learner
from engine.policy import Policy
from engine.records import FALLBACK_REASON_DEADLINE, FALLBACK_REASON_NONE, FALLBACK_REASON_ORACLE_FAILED, Decision
from engine.replay import mismatch
from engine.serving.deciding import Slot, decide, decide_each
from engine.serving.rollout import Rollout
from engine.serving.stages import BOUNDS, STAGES, StageTimes
from tests.engine.samples import NAME, POINT, TIME_MS, VOCABULARY, make_policy, request

Asked = list[tuple[DecideRequest, str]]


def point(exploration: dict[str, Any], oracle: dict[str, Any]) -> DecisionPoint:
    return DecisionPoint.model_validate(
        {**POINT.model_dump(mode="json"), "policy": {"exploration": exploration, "oracle": oracle}}
    )


def learned(exploration: dict[str, Any], oracle: dict[str, Any]) -> Policy:
    """Return a policy whose oracle has learned from two hundred rows of noise."""
    its = point(exploration, oracle)
    rng = np.random.default_rng(5)
    learner = make_learner(its)
    X = rng.normal(size=(200, Encoder(its).width)).astype(np.float32)
    learner.partial_fit(X, [VOCABULARY[i] for i in rng.integers(0, 3, size=200)], rng.random(200))
    return make_policy(oracle=learner.oracle(), point=its, learned=200)


def trees() -> Policy:
    import lightgbm

    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.normal(size=(500, Encoder(POINT).width)), rng.integers(0, 4, size=500)])
    data = lightgbm.Dataset(rows, label=rows.sum(axis=1), params={"verbosity": -1})
    booster = lightgbm.train({"num_leaves": 15, "verbosity": -1, "num_threads": 1}, data, num_boost_round=20)
    return make_policy(oracle=LightGBMOracle(booster.model_to_string()))


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    return {
        "linear": make_policy(),
        "share of uniform": make_policy(uniform_share=0.2),
        "lightgbm": trees(),
        "std": learned({"kind": "linucb"}, {"kind": "recursive_ridge"}),
        "members": learned({"kind": "bag"}, {"kind": "ensemble", "base": {"kind": "online_linear"}}),
        "rows": learned({"kind": "spanner_igw"}, {"kind": "online_linear"}),
    }


KINDS = ("linear", "share of uniform", "lightgbm", "std", "members", "rows")


def asked(seed: int, count: int) -> Asked:
    """Return requests of any size, with other numbers and excluded actions."""
    rng = np.random.default_rng(seed)
    made = []
    for place in range(count):
        one = request()
        del one.actions[int(rng.integers(1, 5)) :]
        one.context.named["amount"].number = float(rng.normal())
        for number, action in enumerate(one.actions):
            action.features["price"].number = float(rng.normal())
            action.excluded = bool(number and rng.random() < 0.3)
        made.append((one, f"d{seed}-{place}"))
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([1, 2, 3, 10, 40]))
def test_a_decision_does_not_depend_on_those_beside_it(
    policies: dict[str, Policy], kind: str, seed: int, count: int
) -> None:
    policy, many = policies[kind], asked(seed, count)
    together = decide_each(policy, many, TIME_MS)
    assert together == [decide(policy, *one, TIME_MS) for one in many]
    for decision in together:
        assert isinstance(decision, Decision)
        assert decision.fallback == FALLBACK_REASON_NONE
        assert mismatch(decision, policy) == ""


def test_a_wrong_request_costs_itself_alone() -> None:
    policy, many = make_policy(), asked(1, 5)
    many[2][0].actions[0].id = ""
    made = decide_each(policy, many, TIME_MS)
    assert isinstance(made[2], InvalidRequest)
    assert made[2].field == "actions[0].id"
    assert [made[i] for i in (0, 1, 3, 4)] == [decide(policy, *many[i], TIME_MS) for i in (0, 1, 3, 4)]
    for one, _ in many:
        one.actions[0].id = ""
    assert all(isinstance(refused, InvalidRequest) for refused in decide_each(policy, many, TIME_MS))


class Choosy(LinearOracle):
    """Gives no score for an action that costs too much."""

    def predict(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
        scores = super().predict(X, codes)
        scores[X[:, -1] < -100.0] = np.nan
        return scores


def test_a_request_that_the_oracle_fails_on_costs_the_others_nothing() -> None:
    theta = np.random.default_rng(1).normal(size=(4, 1 + Encoder(POINT).width))
    policy, many = make_policy(oracle=Choosy(theta)), asked(2, 6)
    many[4][0].actions[0].features["price"].number = 1_000.0
    made = decide_each(policy, many, TIME_MS)
    assert made == [decide(policy, *one, TIME_MS) for one in many]
    reasons = [decision.fallback for decision in made if isinstance(decision, Decision)]
    assert reasons == [FALLBACK_REASON_ORACLE_FAILED if place == 4 else FALLBACK_REASON_NONE for place in range(6)]


def test_too_little_time_asks_no_oracle() -> None:
    policy, many = make_policy(oracle=LinearOracle(np.zeros((1, 1)))), asked(3, 3)
    made = decide_each(policy, many, TIME_MS, effort=Effort.DEADLINE)
    assert made == [decide(policy, *one, TIME_MS, effort=Effort.DEADLINE) for one in many]
    assert {decision.fallback for decision in made if isinstance(decision, Decision)} == {FALLBACK_REASON_DEADLINE}


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_rollout_acts_and_looks_on_as_it_does_alone(mode: str) -> None:
    challenger = make_policy(seed=2, generation=2)
    terms = Challenger.model_validate(
        {"version": challenger.version, "mode": mode, **({"share": 0.5} if mode == "canary" else {})}
    )
    slot = Slot(name=NAME, point=POINT, policy=make_policy(), rollout=Rollout(challenger, terms))
    many = asked(4, 40)
    many[7][0].actions[0].id = ""
    made = slot.decide_each(many, TIME_MS, StageTimes(), effort=Effort.FULL)
    assert isinstance(made.pop(7), InvalidRequest)
    del many[7]
    assert made == [slot.decide(*one, TIME_MS, StageTimes(), effort=Effort.FULL) for one in many]
    versions = {decision.policy_version for decision in made if isinstance(decision, Decision)}
    assert len(versions) == (2 if mode == "canary" else 1)


def test_the_oracle_is_asked_once_for_all() -> None:
    class Counting(LinearOracle):
        calls = 0

        def predict(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
            Counting.calls += 1
            return super().predict(X, codes)

    oracle: Oracle = Counting(np.zeros((4, 1 + Encoder(POINT).width)))
    decide_each(make_policy(oracle=oracle), asked(5, 30), TIME_MS)
    assert Counting.calls == 1


def test_every_stage_is_timed_once_for_each_decision() -> None:
    times = StageTimes()
    for one in asked(6, 4):
        decide(make_policy(), *one, TIME_MS, times=times)
    decide_each(make_policy(), asked(7, 6), TIME_MS, times=times)
    assert [times.count(stage) for stage in STAGES] == [10, 10, 10, 10, 0, 0]
    for stage in STAGES[:4]:
        counts = times.cumulative(stage)
        assert len(counts) == len(BOUNDS) + 1
        assert all(one <= other for one, other in pairwise(counts))
        assert counts[-1] == 10
        assert 0.0 < times.seconds(stage) < 60.0


def test_a_time_is_counted_below_the_next_bound() -> None:
    times = StageTimes()
    times.add(0, (0, 3_000))  # between 2.048 and 4.096 microseconds
    counts: Iterator[tuple[float, int]] = zip(BOUNDS, times.cumulative("encode"), strict=False)
    assert {bound: count for bound, count in counts if bound < 1e-5} == {
        1.024e-06: 0,
        2.048e-06: 0,
        4.096e-06: 1,
        8.192e-06: 1,
    }
