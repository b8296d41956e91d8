"""Feedback of lists: what the outcomes of each slot and task amount to, and all of them together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.config import Recommender
from engine.recommender.outcomes import outcome_problem, slot_of
from engine.records import Decision, Feedback, Outcome
from streaming.entry import Counted
from streaming.reward import aggregate, with_decision


@dataclass(frozen=True)
class SlateReward:
    """How the outcomes of a recommender become the values of its slots, and the reward of a list.

    Parameters
    ----------
    recommender
        Its configuration.
    """

    recommender: Recommender

    @property
    def window(self) -> int:
        """How long after the decision an outcome counts, in milliseconds."""
        return self.recommender.reward.window

    @property
    def grace(self) -> int:
        """How much later than the window an outcome may arrive, in milliseconds."""
        return self.recommender.reward.grace

    @property
    def aggregation(self) -> str:
        """Of several outcomes of one slot and task."""
        return self.recommender.reward.aggregation

    def problem(self, outcome: Outcome) -> str | None:
        """Return what is wrong with an outcome, whatever its decision; ``None``: nothing."""
        found = outcome_problem(self.recommender, outcome)
        return None if found is None else ": ".join(found)


def slot_in(decision: bytes, outcome: Outcome) -> int | str:
    """Return the slot of an outcome in the list of a serialised decision, or the problem with it."""
    return slot_of(Decision.FromString(decision), outcome)


def slate_feedback(decision: bytes, time_ms: int, outcomes: Sequence[Counted], config: SlateReward) -> bytes:
    """Return the feedback of a list, serialised.

    Parameters
    ----------
    decision
        The decision's bytes. They stand in the feedback as they are.
    time_ms
        When it was made.
    outcomes
        Time, value, slot and task of those that count, in the order of the log. What is of no slot or of no task that
        is configured now, as after a change of the configuration, is left out.
    config
        How they become values and a reward.

    Examples
    --------
    >>> from engine.records import Action, Slate
    >>> made = Decision(decision_id="d", actions=[Action(id="a"), Action(id="b")], slate=Slate(items=[1, 0]))
    >>> shop = Recommender.model_validate({"item": {"price": {"type": "number"}}, "tasks": {"click": 1, "buy": 5}})
    >>> outcomes = [(7, 1.0, 1, "click"), (9, 1.0, 1, "buy")]
    >>> found = Feedback.FromString(slate_feedback(made.SerializeToString(), 5, outcomes, SlateReward(shop)))
    >>> found.reward, list(found.slot_values)
    (6.0, [0.0, 0.0, 1.0, 1.0])
    """
    slots = len(Decision.FromString(decision).slate.items)
    weights = config.recommender.tasks
    tasks = {task: place for place, task in enumerate(weights)}
    cells: dict[int, list[tuple[int, float]]] = {}
    for outcome in outcomes:
        if len(outcome) == 4 and outcome[2] < slots and outcome[3] in tasks:
            cells.setdefault(outcome[2] * len(tasks) + tasks[outcome[3]], []).append(outcome[:2])
    values = [config.recommender.reward.default] * (slots * len(tasks))
    for cell, those in cells.items():
        values[cell] = aggregate(those, config.aggregation)
    scales = list(weights.values()) * slots
    last_ms = max((found_ms for those in cells.values() for found_ms, _ in those), default=time_ms + config.window)
    rest = Feedback(
        reward=math.fsum(value * scale for value, scale in zip(values, scales, strict=True)),
        defaulted=not cells,
        outcomes=sum(map(len, cells.values())),
        reward_time_ms=last_ms,
        tasks=list(tasks),
        slot_values=values,
    )
    return with_decision(decision, rest)
