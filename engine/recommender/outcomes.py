"""Which outcomes a recommender takes: of one of its tasks, of one item of the list, with a value from 0 to 1."""

from __future__ import annotations

from engine.api.leeway.v1.service_pb2 import ReportRequest
from engine.config import Recommender
from engine.records import Decision, Outcome

#: An outcome in the log, or the request to report one.
SlotOutcome = Outcome | ReportRequest


def outcome_problem(recommender: Recommender, outcome: SlotOutcome) -> tuple[str, str] | None:
    """Return field and problem of an outcome that cannot be one of this recommender; ``None`` where it can."""
    tasks = ", ".join(recommender.tasks)
    if not outcome.task:
        return "task", f"is empty; name what happened, one of: {tasks}"
    if outcome.task not in recommender.tasks:
        return "task", f"{outcome.task!r} is none of the recommender's; known are: {tasks}"
    if not outcome.item and not outcome.HasField("slot"):
        return "item", "is empty, and so is slot; say which item of the list by its id or by its slot"
    if not 0.0 <= outcome.value <= 1.0:
        return "value", f"{outcome.value} lies outside 0 to 1; it says how much of the task was done, 1 is all of it"
    return None


def slot_of(decision: Decision, outcome: SlotOutcome) -> int | str:
    """Return the slot of an outcome in its list, or the problem with it.

    >>> from engine.records import Action, Slate
    >>> made = Decision(actions=[Action(id="a"), Action(id="b")], slate=Slate(items=[1, 0]))
    >>> slot_of(made, Outcome(item="a")), slot_of(made, Outcome(slot=0))
    (1, 0)
    >>> slot_of(made, Outcome(item="c"))
    "item 'c' was not in the list"
    """
    items = [decision.actions[index].id for index in decision.slate.items]
    if outcome.HasField("slot"):
        slot = outcome.slot
        if not 0 <= slot < len(items):
            return f"slot {slot} is not in the list of {len(items)} items; slots are counted from 0"
        if outcome.item and outcome.item != items[slot]:
            return f"slot {slot} held item {items[slot]!r}, and the outcome names {outcome.item!r}; give one of them"
        return slot
    if outcome.item not in items:
        return f"item {outcome.item!r} was not in the list"
    return items.index(outcome.item)
