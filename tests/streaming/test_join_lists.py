"""The join of lists: an outcome belongs to a slot and a task, and all of them make one feedback."""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Recommender, RewardConfig
from engine.records import DEAD_LETTER_REASON_INVALID, Action, Decision, Feedback, Outcome, Slate
from streaming.cold import ColdTable
from streaming.counting import JoinReward
from streaming.join import Joiner, Source
from streaming.pending import Pending
from streaming.slate_reward import SlateReward
from tests.streaming.joining import (
    GRACE,
    WINDOW,
    Changes,
    Input,
    Told,
    books,
    counts,
    decision,
    drained,
    ends,
    feed,
    hand_in,
    outcome,
    restored,
)

WEIGHTS = {"click": 1.0, "purchase": 5.0}


def recommender(aggregation: str = "max", default: float = 0.0) -> Recommender:
    reward = {"window": WINDOW, "grace": GRACE, "aggregation": aggregation, "default": default}
    item = {"item_id": {"type": "category"}}
    return Recommender.model_validate({"item": item, "tasks": WEIGHTS, "reward": reward})


POINTS: dict[str, JoinReward] = {
    "shop": SlateReward(recommender()),
    "first": SlateReward(recommender("first")),
    "mean": SlateReward(recommender("mean", 0.25)),
    "page": RewardConfig(window=WINDOW, grace=GRACE),
}


def shown(point: str = "shop", time_ms: int = 1_000, decision_id: str = "d") -> Decision:
    """Return a list of the items c and a, out of a, b and c."""
    return Decision(
        decision_id=decision_id,
        decision_point=point,
        time_ms=time_ms,
        actions=[Action(id=identity) for identity in "abc"],
        slate=Slate(items=[2, 0], propensities=[0.5, 0.5]),
    )


def event(
    task: str = "click",
    *,
    item: str = "",
    slot: int | None = None,
    value: float = 1.0,
    time_ms: int = 1_050,
    outcome_id: str = "",
    decision_id: str = "d",
    point: str = "shop",
) -> Outcome:
    return Outcome(
        decision_id=decision_id,
        decision_point=point,
        outcome_id=outcome_id,
        time_ms=time_ms,
        value=value,
        task=task,
        item=item,
        slot=slot,
    )


def test_an_outcome_goes_to_its_slot_by_item_or_by_number_and_all_make_the_reward() -> None:
    joiner = Joiner(POINTS)
    events = [event(item="a"), event("purchase", slot=1, time_ms=1_070), event(item="c", slot=0, value=0.5)]
    (feedback,) = feed(joiner, shown(), *events, *ends(1_110)).feedback
    assert feedback == Feedback(
        decision=shown(),
        reward=0.5 + 1.0 + 5.0,
        outcomes=3,
        reward_time_ms=1_070,
        tasks=["click", "purchase"],
        slot_values=[0.5, 0.0, 1.0, 1.0],
    )
    assert counts(joiner, "shop") == books(decisions=1, feedback=1)


def test_where_nothing_came_every_slot_has_the_default() -> None:
    (feedback,) = feed(Joiner(POINTS), shown("mean"), *ends(1_110)).feedback
    assert (feedback.defaulted, feedback.outcomes, feedback.reward_time_ms) == (True, 0, 1_100)
    assert list(feedback.slot_values) == [0.25] * 4
    assert feedback.reward == 2 * 0.25 * (1.0 + 5.0)


@pytest.mark.parametrize(
    ("point", "value", "surplus"),
    [("shop", 0.75, 0), ("first", 0.25, 1), ("mean", 0.5, 0)],
)
def test_several_outcomes_of_one_slot_and_task_are_aggregated(point: str, value: float, surplus: int) -> None:
    joiner = Joiner(POINTS)
    events = [
        event(slot=0, value=0.25, point=point),
        event(item="c", value=0.75, point=point),
        event("purchase", slot=0, point=point),
    ]
    (feedback,) = feed(joiner, shown(point), *events, *ends(1_110)).feedback
    assert feedback.slot_values[:2] == [value, 1.0]
    assert counts(joiner, point) == books(decisions=1, feedback=1, surplus_outcomes=surplus)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (event("clcik", slot=0), "'clcik' is none of the recommender's; known are: click, purchase"),
        (event("", slot=0), "task: is empty"),
        (event(), "say which item of the list"),
        (event(item="b"), "item 'b' was not in the list"),
        (event(slot=2), "slot 2 is not in the list of 2 items"),
        (event(slot=-1), "slot -1 is not in the list"),
        (event(item="a", slot=0), "slot 0 held item 'c', and the outcome names 'a'"),
        (event(slot=0, value=1.5), "1.5 lies outside 0 to 1"),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_what_cannot_be_is_put_aside_once_and_stops_nothing(wrong: Outcome, words: str, waits: bool) -> None:
    joiner = Joiner(POINTS)
    items: list[Input] = [wrong, wrong, shown()] if waits else [shown(), wrong, wrong]
    told = feed(joiner, *items, event(item="a"), *ends(1_110))
    assert [reason for reason, _, _ in told.rejected] == [DEAD_LETTER_REASON_INVALID]
    assert words in told.rejected[0][1]
    assert [f.reward for f in told.feedback] == [1.0]
    assert counts(joiner, "shop") == books(decisions=1, feedback=1, dead_letters=1, duplicate_outcomes=1)


def test_a_decision_of_one_action_has_no_slots() -> None:
    told = feed(Joiner(POINTS), decision("page"), event(slot=0, point="page"), outcome(0.5), *ends(1_110))
    assert "task, item and slot are of recommenders" in told.rejected[0][1]
    assert [f.reward for f in told.feedback] == [0.5]


def test_two_slots_of_one_moment_are_two_outcomes_and_a_copy_is_none() -> None:
    joiner = Joiner(POINTS)
    twins = [event(slot=0), event(slot=1), event("purchase", slot=1)]
    (feedback,) = feed(joiner, *twins, shown(), *twins, *ends(1_110)).feedback
    assert (feedback.outcomes, feedback.reward) == (3, 7.0)
    assert counts(joiner, "shop").duplicate_outcomes == 3


def test_what_is_late_is_kept_apart() -> None:
    joiner = Joiner(POINTS)
    told = feed(joiner, shown(), event(slot=0, time_ms=1_101), *ends(1_110), event(slot=1))
    assert [f.reward for f in told.feedback] == [0.0]
    assert [o.time_ms for o in told.late] == [1_101, 1_050]
    assert counts(joiner, "shop") == books(decisions=1, feedback=1, defaulted=1, late_outcomes=2)


def test_a_point_that_becomes_something_else_meanwhile_stops_nothing() -> None:
    first = Joiner(POINTS)
    changes = feed(
        first, shown(), event(slot=0), decision("page", decision_id="e"), outcome(0.5, decision_id="e")
    ).changes
    swapped = {"shop": POINTS["page"], "page": POINTS["shop"]}
    told = feed(restored(changes, swapped), *ends(1_110))
    assert {f.decision.decision_id: f.reward for f in told.feedback} == {"d": 1.0, "e": 0.0}


# ---- whatever comes, in whatever order

events = st.builds(
    event,
    st.sampled_from(["click", "purchase", "none"]),
    item=st.sampled_from(["", "", "a", "b", "c"]),
    slot=st.sampled_from([None, None, 0, 1, 5]),
    value=st.sampled_from([0.0, 0.25, 1.0, 2.0]),
    time_ms=st.integers(1_000, 1_100),
    outcome_id=st.sampled_from(["", "", "", "x", "y"]),
    decision_id=st.sampled_from(["d", "e"]),
)


def expected(mine: list[Outcome]) -> tuple[list[float], int]:
    """Return the values of both slots, and how many outcomes they are made of, independently of the join."""
    slot_of = {"c": 0, "a": 1}
    best: dict[tuple[int, str], float] = {}
    seen: set[object] = set()
    used = 0
    for one in mine:
        identity = one.outcome_id or (one.time_ms, one.value, one.task, one.item, one.slot, one.HasField("slot"))
        named = slot_of.get(one.item) if one.item else None
        slot = one.slot if one.HasField("slot") else named
        sound = one.task in WEIGHTS and slot in (0, 1) and one.value <= 1.0
        sound = sound and not (one.item and one.HasField("slot") and named != slot)
        if not sound or identity in seen:
            continue
        seen.add(identity)
        used += 1
        assert slot is not None
        best[slot, one.task] = max(best.get((slot, one.task), 0.0), one.value)
    return [best.get((slot, task), 0.0) for slot in (0, 1) for task in WEIGHTS], used


@settings(max_examples=300, deadline=None)
@given(st.lists(events, max_size=25), st.integers(0, 2**32))
def test_exactly_one_feedback_with_the_value_of_every_slot(given_events: list[Outcome], seed: int) -> None:
    items: list[Input] = [*given_events, shown(decision_id="d"), shown(decision_id="e", time_ms=1_001)]
    random.Random(seed).shuffle(items)
    joiner = Joiner(POINTS)
    told = feed(joiner, *items, *ends(10**6))
    assert Counter(f.decision.decision_id for f in told.feedback) == Counter("de")
    for feedback in told.feedback:
        mine = [i for i in items if isinstance(i, Outcome) and i.decision_id == feedback.decision.decision_id]
        values, used = expected(mine)
        assert list(feedback.slot_values) == values
        assert (feedback.outcomes, feedback.defaulted) == (used, used == 0)
        weights = list(WEIGHTS.values()) * 2
        assert feedback.reward == math.fsum(v * w for v, w in zip(values, weights, strict=True))
    book = counts(joiner, "shop")
    assert book.decisions == book.feedback == 2
    counted = sum(f.outcomes for f in told.feedback)
    assert counted + book.duplicate_outcomes + book.dead_letters == len(given_events)


mixed = st.lists(
    st.one_of(
        st.builds(shown, st.sampled_from(["shop", "first", "nowhere"]), st.integers(990, 1_100), st.sampled_from("de")),
        st.builds(decision, st.just("page"), st.integers(990, 1_100), st.sampled_from("def")),
        events,
        st.builds(outcome, st.sampled_from([0.0, 0.5]), st.integers(990, 1_200), decision_id=st.sampled_from("def")),
        st.tuples(st.sampled_from(Source), st.integers(990, 1_400)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(mixed, st.sampled_from([None, 0, 1]), st.data())
def test_where_it_is_cut_and_restarted_changes_nothing(
    items: list[Input], max_hot: int | None, data: st.DataObject
) -> None:
    items += ends(10**6)
    joiner = Joiner(POINTS)
    whole = feed(joiner, *items)
    books_of_whole = joiner.accounting()
    changelog: Changes = []
    parts = Told()
    idle: dict[Source, int] = {}
    with TemporaryDirectory() as directory, ExitStack() as stack:

        def made() -> Joiner:
            pending = Pending(max_hot, partial(ColdTable, Path(directory)))
            stack.callback(pending.close)
            return restored(changelog, POINTS, pending)

        joiner = made()
        for item in items:
            hand_in(joiner, item)
            if isinstance(item, tuple):
                idle[item[0]] = max(item[1], idle.get(item[0], item[1]))
            if data.draw(st.booleans()):
                told = drained(joiner)
                changelog.extend(told.changes)
                parts.feedback += told.feedback
                parts.late += told.late
                joiner = made()
                for source, now_ms in idle.items():
                    joiner.on_end(source, now_ms)
        told = drained(joiner)
        parts.feedback += told.feedback
        parts.late += told.late
        assert joiner.accounting() == books_of_whole
    assert parts.feedback == whole.feedback
    assert parts.late == whole.late
