"""What the join knows of one decision id."""

from __future__ import annotations

from typing import Any

from engine.records import JoinStage
from streaming.log import Record

#: Time and value of an outcome that counts; of a list also its slot and its task.
Counted = tuple[int, float] | tuple[int, float, int, str]


class Entry:
    """What the join knows of one decision id. There are millions of them: few are a tuple, many a list or dict.

    Attributes
    ----------
    stage : JoinStage
        How far it has come.
    due_ms : int
        When its window closes, or it is given up or forgotten.
    not_before_ms : int
        It is remembered until then at least.
    block : int
        Number of the block of the changelog that holds it as it is; 0: none yet.
    point : str
        Its decision point; empty while it waits.
    time_ms : int
        When the decision was made.
    decision : bytes or None
        The decision as it came, until its feedback is given.
    inactive : bool
        Whether the decision was deferred, and is not activated yet.
    overdue : bool
        Whether its window was over by the clock on the wall when it was read, and no topic was at its end since.
    outcomes : sequence of Counted
        Those that count, in the order of the log; empty when the feedback is given.
    seen : tuple or dict of str
        What tells the outcomes seen so far from new ones, in their order.
    waiting : tuple of Record
        Outcomes before their decision, as they came.
    """

    __slots__ = (
        "block", "decision", "due_ms", "inactive", "not_before_ms", "outcomes", "overdue", "point", "seen", "stage",
        "time_ms", "waiting",
    )  # fmt: skip

    #: How many are few.
    MANY = 16

    def __init__(self, stage: JoinStage.ValueType, due_ms: int, point: str, time_ms: int, decision: bytes | None):
        self.stage = stage
        self.due_ms = due_ms
        self.not_before_ms = 0
        self.block = 0
        self.point = point
        self.time_ms = time_ms
        self.decision = decision
        self.inactive = False
        self.overdue = False
        self.outcomes: tuple[Counted, ...] | list[Counted] = ()
        self.seen: tuple[str, ...] | dict[str, None] = ()
        self.waiting: tuple[Record, ...] = ()

    def see(self, identity: str) -> None:
        """Note what tells an outcome from others."""
        seen = self.seen
        if not seen:
            self.seen = (identity,)
        elif isinstance(seen, dict):
            seen[identity] = None
        elif len(seen) < self.MANY:
            self.seen = (*seen, identity)
        else:
            self.seen = dict.fromkeys((*seen, identity))

    def count(self, outcome: Counted) -> None:
        """Add an outcome that counts."""
        outcomes = self.outcomes
        if not outcomes:
            self.outcomes = (outcome,)
        elif isinstance(outcomes, list):
            outcomes.append(outcome)
        elif len(outcomes) < self.MANY:
            self.outcomes = (*outcomes, outcome)
        else:
            self.outcomes = [*outcomes, outcome]

    def wait(self, record: Record) -> None:
        """Add an outcome that has no decision yet."""
        self.waiting = (*self.waiting, record)

    def rest(self) -> tuple[Any, ...]:
        """Return all but due time and block, in types that ``marshal`` knows."""
        waiting = [
            (r.topic, r.partition, r.offset, r.timestamp_ms, r.key, r.value, tuple(r.headers)) for r in self.waiting
        ]
        return (
            self.stage, self.not_before_ms, self.point, self.time_ms, self.decision, self.outcomes, tuple(self.seen),
            waiting, self.inactive, self.overdue,
        )  # fmt: skip

    @classmethod
    def of(cls, due_ms: int, block: int, rest: tuple[Any, ...]) -> Entry:
        """Return the entry that :meth:`rest` was taken from."""
        stage, not_before_ms, point, time_ms, decision, outcomes, seen, waiting, inactive, overdue = rest
        entry = cls(stage, due_ms, point, time_ms, decision)
        entry.not_before_ms = not_before_ms
        entry.block = block
        entry.inactive = inactive
        entry.overdue = overdue
        entry.outcomes = outcomes
        entry.seen = dict.fromkeys(seen) if len(seen) > cls.MANY else seen
        entry.waiting = tuple([Record(*record) for record in waiting])
        return entry


Item = tuple[bytes, Entry]
