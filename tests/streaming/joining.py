"""Decisions and outcomes for the tests of the join, and what it makes of them in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.config import RewardConfig
from engine.records import DeadLetterReason, Decision, Feedback, JoinAccounting, JoinHead, Outcome
from streaming.changelog import HEAD_KEY
from streaming.counting import JoinReward
from streaming.effects import Effects
from streaming.join import Joiner, Source
from streaming.log import Record
from streaming.pending import Pending
from streaming.topics import DECISIONS, OUTCOMES

WINDOW, GRACE = 100, 10
POINTS = {
    name: RewardConfig.model_validate(
        {"window": WINDOW, "grace": GRACE, "aggregation": name, "default": -0.5, "range": (-1.0, 1.0)}
    )
    for name in ("first", "last", "sum", "min", "max", "mean")
}
End = tuple[Source, int]
#: A number is the time on the wall.
Input = Decision | Outcome | End | int
Changes = list[tuple[bytes, bytes | None]]


def decision(point: str = "last", time_ms: int = 1_000, decision_id: str = "d", *, deferred: bool = False) -> Decision:
    return Decision(decision_id=decision_id, decision_point=point, time_ms=time_ms, deferred=deferred)


def activation(time_ms: int = 1_020, decision_id: str = "d", outcome_id: str = "", point: str = "") -> Outcome:
    return Outcome(
        decision_id=decision_id, time_ms=time_ms, outcome_id=outcome_id, decision_point=point, activation=True
    )


def outcome(
    value: float, time_ms: int = 1_050, outcome_id: str = "", decision_id: str = "d", point: str = ""
) -> Outcome:
    return Outcome(decision_id=decision_id, outcome_id=outcome_id, time_ms=time_ms, value=value, decision_point=point)


def ends(now_ms: int) -> list[End]:
    return [(source, now_ms) for source in Source]


def record_of(item: Decision | Outcome, offset: int = 0) -> Record:
    topic = DECISIONS if isinstance(item, Decision) else OUTCOMES
    headers = (("ce_id", item.decision_id.encode()), ("x", b"")) if topic == OUTCOMES else ()
    return Record(topic, 0, offset, item.time_ms, item.decision_id.encode(), item.SerializeToString(), headers)


@dataclass
class Told:
    """Effects of a joiner, read back from their bytes."""

    feedback: list[Feedback] = field(default_factory=list)
    late: list[Outcome] = field(default_factory=list)
    rejected: list[tuple[DeadLetterReason.ValueType, str, Record]] = field(default_factory=list)
    changes: Changes = field(default_factory=list)
    skewed: int = 0

    def __bool__(self) -> bool:
        return bool(self.changes)

    def add(self, effects: Effects) -> None:
        for key, point, time_ms, value in effects.feedback:
            feedback = Feedback.FromString(value)
            assert feedback.SerializeToString() == value  # the canonical bytes
            made = feedback.decision
            assert (key, point, time_ms) == (
                made.decision_id.encode(), made.decision_point, made.time_ms,
            )  # fmt: skip
            self.feedback.append(feedback)
        self.late += [Outcome.FromString(record.value or b"") for record in effects.late]
        self.rejected += effects.rejected
        self.changes += effects.changes
        self.skewed += effects.skewed

    @property
    def head(self) -> JoinHead:
        key, value = self.changes[-1]
        assert key == HEAD_KEY
        return JoinHead.FromString(value or b"")


def hand_in(joiner: Joiner, item: Input, offset: int = 0) -> None:
    if isinstance(item, Decision):
        joiner.on_decision(item, record_of(item, offset))
    elif isinstance(item, Outcome):
        joiner.on_outcome(item, record_of(item, offset))
    elif isinstance(item, int):
        joiner.on_time(item, 2**53)
    else:
        joiner.on_end(*item)


def drained(joiner: Joiner) -> Told:
    told = Told()
    told.add(joiner.drain())
    return told


def feed(joiner: Joiner, *items: Input) -> Told:
    for item in items:
        hand_in(joiner, item)
    return drained(joiner)


def compacted(changes: Iterable[tuple[bytes, bytes | None]]) -> Changes:
    """Return what is left of a changelog when all that is superseded was removed."""
    left: dict[bytes, bytes | None] = {}
    for key, value in changes:
        left.pop(key, None)
        left[key] = value
    return [(key, value) for key, value in left.items() if value is not None]


def restored(
    changes: Changes, points: Mapping[str, JoinReward], pending: Pending | None = None, max_closings: int = 10_000
) -> Joiner:
    joiner = Joiner(points, pending, max_closings=max_closings)
    heads = [value for key, value in changes if key == HEAD_KEY]
    if heads:
        joiner.restore(JoinHead.FromString(heads[-1] or b""), changes)
    return joiner


def books(**counts: int) -> JoinAccounting:
    return JoinAccounting(**counts)


def counts(joiner: Joiner, point: str) -> JoinAccounting:
    book = joiner.accounting().get(point, JoinAccounting())
    book.watermark_ms = 0
    return book
