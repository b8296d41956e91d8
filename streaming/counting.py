"""Which outcomes count, for what, and what tells one from another: of decisions and of lists."""

from __future__ import annotations

from engine.config import RewardConfig
from engine.records import Outcome
from streaming.entry import Counted, Entry
from streaming.reward import feedback
from streaming.slate_reward import SlateReward, slate_feedback, slot_in

#: How outcomes become a reward: of a decision point, or of a recommender.
JoinReward = RewardConfig | SlateReward


def counted(entry: Entry, outcome: Outcome, config: JoinReward) -> Counted | str:
    """Return an outcome as it counts for its decision, or what is wrong with it."""
    time_ms, value = outcome.time_ms, outcome.value
    named = outcome.decision_point
    if named and named != entry.point:
        # Who may report for one point alone is let in by the name that stands here: it has to be true.
        return f"decision_point {named!r} is not that of the decision, {entry.point!r}; correct it, or leave it out"
    if outcome.activation:
        if isinstance(config, SlateReward):
            return (
                f"activations are of decisions that were deferred, and {entry.point!r} is a recommender; leave it out"
            )
        return time_ms, 0.0
    if isinstance(config, SlateReward):
        problem = config.problem(outcome)
        if problem is not None:
            return f"{problem} (recommender {entry.point!r})"
        # What is late is not looked up any more: its decision is gone, and it counts for nothing.
        slot = 0 if entry.decision is None else slot_in(entry.decision, outcome)
        return slot if isinstance(slot, str) else (time_ms, value, slot, outcome.task)
    if _of_list(outcome):
        return f"task, item and slot are of recommenders, and {entry.point!r} is a decision point; leave them out"
    low, high = config.range
    if config.aggregation != "sum" and not low <= value <= high:
        return f"value {value} lies outside the range [{low}, {high}] of decision point {entry.point!r}"
    return time_ms, value


def feedback_of_entry(entry: Entry, decision: bytes, config: JoinReward) -> bytes:
    """Return the feedback of an entry whose window closes, serialised; ``decision`` is its decision."""
    if isinstance(config, SlateReward):
        return slate_feedback(decision, entry.time_ms, entry.outcomes, config)
    # Outcomes with slots are from the time when the point was a recommender.
    return feedback(decision, entry.time_ms, [outcome[:2] for outcome in entry.outcomes], config)


def _of_list(outcome: Outcome) -> bool:
    return bool(outcome.task or outcome.item) or outcome.HasField("slot")


def identity_of(outcome: Outcome) -> str:
    """Return what two deliveries of one outcome have in common, and no other outcome of its decision has."""
    # NUL sets it apart from ids that clients give; + 0.0 makes one zero of -0.0 and 0.0.
    said = "activation" if outcome.activation else repr(outcome.value + 0.0)
    return outcome.outcome_id or f"\0{outcome.time_ms} {said}{_place(outcome)}"


def copy_of(outcome: Outcome, identity: str) -> str:
    """Return what tells an outcome from those of its id with another value; it is nobody's identity."""
    return f"\0{outcome.value + 0.0!r}{_place(outcome)}\0{identity}"


def _place(outcome: Outcome) -> str:
    if not _of_list(outcome):
        return ""
    slot = outcome.slot if outcome.HasField("slot") else ""
    return f" {outcome.task!r} {outcome.item!r} {slot}"
