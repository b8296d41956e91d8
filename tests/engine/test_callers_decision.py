"""Where the caller's own choice acts: logged as it is stated, answered as it is, and never scored or drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.leeway.v1.service_pb2 import Choice, ClientDecision, DecideRequest
from engine.errors import InvalidRequest
from engine.oracles import LinearOracle
from engine.records import FALLBACK_REASON_CLIENT, MODE_LOGGING_ONLY, MODE_ONLINE
from engine.replay import mismatch
from engine.serving.service import DecisionService
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, actions, make_policy, request

POLICY = make_policy()
VECTOR = [0.5, 0.2, 0.2, 0.1]
LOGGING = POINT.model_copy(update={"mode": "logging_only"})


class World:
    """A core over a log in memory, whose decision point works in some mode."""

    def __init__(self, point: object = LOGGING) -> None:
        self.recorder = MemoryRecorder()
        self.service = DecisionService({NAME: point}, {NAME: POLICY}, self.recorder, MemoryObserver(), 100)  # type: ignore[dict-item]


def stating(chosen: int, probabilities: list[float] = VECTOR, decision_id: str = "d1") -> DecideRequest:
    asked = request(decision_id)
    asked.choice.CopyFrom(Choice(chosen=chosen, probabilities=probabilities))
    return asked


@pytest.mark.parametrize("chosen", range(4))
def test_the_callers_choice_acts_with_the_vector_that_it_states(chosen: int) -> None:
    world = World()
    answer = world.service.decide(stating(chosen), TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert decision.chosen == answer.action_index == chosen
    assert answer.action == decision.actions[chosen].id
    assert list(decision.probabilities) == list(answer.probabilities) == VECTOR
    assert answer.propensity == VECTOR[chosen]
    assert decision.mode == MODE_LOGGING_ONLY
    assert decision.policy_version == POLICY.version
    assert not decision.scores
    assert mismatch(decision, POLICY) == ""


def test_a_choice_that_was_not_drawn_has_probability_1() -> None:
    world = World()
    assert world.service.decide(stating(2, []), TIME_MS).result(timeout=5).propensity == 1.0
    assert list(world.recorder.decisions[0].probabilities) == [0.0, 0.0, 1.0, 0.0]


def test_without_a_choice_it_is_the_first_action_that_is_not_excluded() -> None:
    world = World()
    asked = request("d1")
    del asked.actions[:]
    asked.actions.extend(actions("north"))
    answer = world.service.decide(asked, TIME_MS).result(timeout=5)
    assert (answer.action, answer.propensity) == ("east", 1.0)
    assert mismatch(world.recorder.decisions[0], POLICY) == ""


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda weights: sum(weights) > 1e-6), st.data())
def test_any_choice_that_can_have_been_is_logged_bit_for_bit(weights: list[float], data: st.DataObject) -> None:
    vector = [weight / sum(weights) for weight in weights]
    chosen = data.draw(st.sampled_from([index for index, p in enumerate(vector) if p > 0.0]))
    world = World()
    world.service.decide(stating(chosen, vector), TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert (decision.chosen, list(decision.probabilities)) == (chosen, vector)
    assert mismatch(decision, POLICY) == ""


def test_many_at_once_are_those_of_single_calls() -> None:
    one, many = World(), World()
    asked = [stating(index % 4, decision_id=f"d{index}") for index in range(6)]
    asked[3].choice.chosen = 9
    alone = []
    for each in asked:
        try:
            alone.append(one.service.decide(each, TIME_MS).result(timeout=5))
        except InvalidRequest as error:
            alone.append(str(error))  # type: ignore[arg-type]
    together = [
        str(answer) if isinstance(answer, Exception) else answer.result(timeout=5)
        for answer in many.service.decide_each(asked, TIME_MS)
    ]
    assert together == alone
    assert many.recorder.records == one.recorder.records
    assert len(many.recorder.records) == 5


def test_a_broken_oracle_is_not_asked() -> None:
    world = World()
    world.service.swap(make_policy(oracle=LinearOracle(np.full_like(POLICY.oracle.arrays()["theta"], np.nan))))
    world.service.decide(stating(1), TIME_MS).result(timeout=5)
    assert world.recorder.decisions[0].fallback == 0


def test_asked_again_it_is_logged_once() -> None:
    world = World()
    first = world.service.decide(stating(1), TIME_MS).result(timeout=5)
    assert world.service.decide(stating(1), TIME_MS + 5).result(timeout=5) == first
    assert len(world.recorder.records) == 1


def test_online_the_policy_acts_whatever_the_caller_would_do() -> None:
    stated, silent = World(POINT), World(POINT)
    answer = stated.service.decide(stating(1), TIME_MS).result(timeout=5)
    assert answer == silent.service.decide(request("d1"), TIME_MS).result(timeout=5)
    assert stated.recorder.records == silent.recorder.records
    assert stated.recorder.decisions[0].mode == MODE_ONLINE


def _excluding(chosen: int) -> DecideRequest:
    asked = stating(chosen, [])
    asked.actions[chosen].excluded = True
    return asked


WRONG: dict[str, tuple[Callable[[], DecideRequest], str]] = {
    "no such action": (lambda: stating(4), r"choice.chosen: is 4; send the index of one of the 4 actions"),
    "before the first": (lambda: stating(-1), r"choice.chosen: is -1"),
    "excluded": (lambda: _excluding(2), r"choice.chosen: is 2, which is excluded"),
    "too short": (lambda: stating(0, [1.0]), r"choice.probabilities: has 1 entries for 4 actions"),
    "not 1": (lambda: stating(0, [0.5, 0.0, 0.0, 0.0]), r"choice.probabilities: adds up to 0.5"),
    "impossible": (lambda: stating(0, [0.0, 1.0, 0.0, 0.0]), r"choice.probabilities: is 0 for action 0, which was"),
}


@pytest.mark.parametrize(("build", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_have_been_chosen_is_refused(build: Callable[[], DecideRequest], words: str) -> None:
    world = World()
    with pytest.raises(InvalidRequest, match=words):
        world.service.decide(build(), TIME_MS)
    assert world.recorder.records == []


def test_replay_tells_what_a_caller_cannot_have_stated() -> None:
    world = World()
    world.service.decide(stating(0, [0.5, 0.5, 0.0, 0.0]), TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    decision.chosen = 3
    assert "cannot give it" in mismatch(decision, POLICY)
    decision.chosen = 0
    decision.probabilities[0] = 0.25
    assert "adds up to 0.75" in mismatch(decision, POLICY)


def handed_in(**changes: object) -> ClientDecision:
    made = {"request": stating(2, decision_id="f1"), "probabilities": VECTOR, "chosen": 2, "time_ms": TIME_MS - 1_000}
    return ClientDecision(**(made | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("point", [POINT, LOGGING], ids=["online", "logging_only"])
def test_a_choice_that_acted_in_an_outage_is_handed_in_as_it_was(point: object) -> None:
    world = World(point)
    world.service.record(handed_in(), TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert (decision.chosen, list(decision.probabilities)) == (2, VECTOR)
    assert (decision.mode, decision.fallback) == (MODE_LOGGING_ONLY, FALLBACK_REASON_CLIENT)
    assert decision.time_ms == TIME_MS - 1_000
    assert mismatch(decision, POLICY) == ""


@pytest.mark.parametrize("changes", [{"chosen": 1}, {"probabilities": [0.0, 0.0, 1.0, 0.0]}], ids=["action", "vector"])
def test_what_is_handed_in_has_to_be_the_choice_that_is_stated(changes: dict[str, object]) -> None:
    world = World()
    with pytest.raises(InvalidRequest, match="is not the choice of the request"):
        world.service.record(handed_in(**changes), TIME_MS)


def test_the_mode_is_no_part_of_a_policy() -> None:
    assert make_policy(point=LOGGING).version == POLICY.version
