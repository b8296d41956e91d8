"""What is written in a format comes back as it was: every float, text and order, whatever a log holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DecisionPoint
from engine.records import FALLBACK_REASON_DEADLINE, Action, Decision, Features, Feedback, Numbers, Value
from tests.training.feedback import POINT, feedback
from training.formats import (
    Read,
    from_bandit_feedback,
    read_cb_adf,
    read_dsjson,
    read_open_bandit,
    to_bandit_feedback,
    unpacked,
    write_cb_adf,
    write_dsjson,
    write_open_bandit,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = (
    NUMBERS.map(lambda number: Value(number=number))
    | TEXTS.map(lambda text: Value(text=text))
    | st.lists(NUMBERS, min_size=1, max_size=3).map(lambda numbers: Value(numbers=Numbers(values=numbers)))
)
FEATURES = st.dictionaries(st.sampled_from(["a", "b_1", "price", "x0_y"]), VALUES, max_size=4)


@st.composite
def a_feedback(draw: st.DrawFn) -> Feedback:
    """Any feedback that the service could have logged: excluded actions have probability 0."""
    ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    chosen = draw(st.integers(0, len(ids) - 1))
    excluded = [i != chosen and draw(st.booleans()) for i in range(len(ids))]
    masses = np.array([0.0 if out else draw(st.floats(1e-6, 1.0)) for out in excluded])
    decision = Decision(
        decision_id=draw(IDS),
        decision_point="offers",
        time_ms=draw(st.integers(0, 4_000_000_000_000)),
        policy_version=draw(TEXTS),
        context=Features(named=draw(FEATURES)),
        actions=[
            Action(id=identity, features=draw(FEATURES), excluded=out)
            for identity, out in zip(ids, excluded, strict=True)
        ],
        probabilities=masses / masses.sum(),
        chosen=chosen,
        scores=draw(st.lists(NUMBERS, min_size=len(ids), max_size=len(ids))),
        salt=draw(TEXTS),
    )
    if draw(st.booleans()):
        decision.fallback, decision.fallback_detail = FALLBACK_REASON_DEADLINE, draw(TEXTS)
    return Feedback(
        decision=decision,
        reward=draw(NUMBERS),
        defaulted=draw(st.booleans()),
        outcomes=draw(st.integers(0, 9)),
        reward_time_ms=draw(st.integers(0, 4_000_000_000_000)),
    )


def read(found: Sequence[Read]) -> list[Feedback]:
    assert [each for each in found if not isinstance(each, Feedback)] == []
    return [each for each in found if isinstance(each, Feedback)]


@settings(max_examples=60)
@given(st.lists(a_feedback(), max_size=3))
def test_dsjson_gives_back_every_field(feedbacks: list[Feedback]) -> None:
    lines = list(write_dsjson(feedbacks))
    assert read(list(read_dsjson([f"{line}\n" for line in lines], "other"))) == feedbacks


@settings(max_examples=60)
@given(st.lists(a_feedback(), max_size=3))
def test_vw_text_gives_back_features_choice_propensity_and_reward(feedbacks: list[Feedback]) -> None:
    text = "\n".join(write_cb_adf(feedbacks))
    found = read(list(read_cb_adf(text.split("\n"), "offers", first_ms=5)))
    assert len(found) == len(feedbacks)
    for number, (mine, theirs) in enumerate(zip(feedbacks, found, strict=True)):
        one, other = mine.decision, theirs.decision
        offered = [action for action in one.actions if not action.excluded]
        assert list(other.actions) == offered
        assert other.actions[other.chosen] == one.actions[one.chosen]
        assert other.probabilities[other.chosen] == one.probabilities[one.chosen]
        assert sum(other.probabilities) == pytest.approx(1.0)
        assert (other.context, other.decision_id, other.time_ms) == (one.context, one.decision_id, 5 + number)
        assert theirs.reward == mine.reward


FIXED = st.fixed_dictionaries(
    {"user_feature_0": IDS.filter(lambda text: not _is_number(text)), "age": NUMBERS, "clicks": NUMBERS}
)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@settings(max_examples=60)
@given(st.lists(st.tuples(FIXED, st.integers(0, 2), st.floats(1e-9, 1.0), NUMBERS, NUMBERS), min_size=1, max_size=3))
def test_open_bandit_tables_give_back_what_they_have_a_column_for(
    rows: list[tuple[dict[str, str | float], int, float, float, float]],
) -> None:
    feedbacks = []
    for number, (raw, chosen, propensity, reward, affinity) in enumerate(rows):
        context = {k: Value(text=v) if isinstance(v, str) else Value(number=v) for k, v in raw.items()}
        context["position"] = Value(text="2")
        rest = (1.0 - propensity) / 2
        decision = Decision(
            decision_point="offers",
            time_ms=1_000 + number,
            context=Features(named=context),
            actions=[Action(id=str(i), features={"affinity": Value(number=affinity)}) for i in range(3)],
            probabilities=[propensity if i == chosen else rest for i in range(3)],
            chosen=chosen,
        )
        feedbacks.append(Feedback(decision=decision, reward=reward, outcomes=1, reward_time_ms=1_000 + number))
    lines = list(write_open_bandit(feedbacks))
    found = read(list(read_open_bandit(lines, "offers")))
    for each in found:
        each.decision.decision_id = ""  # a table has none
    assert found == feedbacks


def test_the_dictionary_of_open_bandit_pipeline_gives_back_numbers_and_vectors() -> None:
    rng = np.random.default_rng(0)
    bandit_feedback: dict[str, Any] = {
        "n_rounds": 50,
        "n_actions": 3,
        "context": rng.normal(size=(50, 4)),
        "action": rng.integers(3, size=50),
        "position": None,
        "reward": rng.normal(size=50),
        "pscore": np.empty(50),
        "pi_b": rng.dirichlet(np.ones(3), size=50)[:, :, None],
    }
    pi_b, action = bandit_feedback["pi_b"], bandit_feedback["action"]
    bandit_feedback["pscore"] = pi_b[np.arange(50), action, 0]
    again = to_bandit_feedback(from_bandit_feedback(bandit_feedback, "offers"))
    for key in ("context", "action", "reward", "pscore", "pi_b"):
        assert np.array_equal(again[key], bandit_feedback[key]), key
    assert (again["n_rounds"], again["n_actions"]) == (50, 3)


def test_packed_features_are_named_before_they_are_written() -> None:
    packed = [feedback(i, 1_000 + i) for i in range(12)]
    for each in packed:
        for action in each.decision.actions:
            action.excluded = False  # these have a probability all the same
    assert any(each.decision.context.packed for each in packed)
    with pytest.raises(ValueError, match="unpacked"):
        list(write_dsjson(packed))
    named = [unpacked(each, POINT) for each in packed]
    assert read(list(read_dsjson(write_dsjson(named), "offers"))) == named
    for mine, theirs in zip(packed, named, strict=True):
        assert _encoded(POINT, mine) == _encoded(POINT, theirs)


def _encoded(point: DecisionPoint, each: Feedback) -> list[list[float]]:
    from engine.features import Encoder

    decision = each.decision
    rows: list[list[float]] = (
        Encoder(point).encode(decision.context, decision.actions, decision.packed_actions).X.tolist()
    )
    return rows
