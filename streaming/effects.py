"""What follows from the inputs of the join, and has to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from engine.records import DeadLetterReason
from streaming.log import Record

#: Feedback: decision id, decision point and time of the decision, and the record's bytes.
Joined = tuple[bytes, str, int, bytes]


class Rejected(NamedTuple):
    """A record that goes to dead letters, as it came."""

    reason: DeadLetterReason.ValueType
    detail: str
    record: Record


@dataclass(slots=True)
class Effects:
    """What has to be written, in one transaction, for the inputs since the last :meth:`Joiner.drain`.

    Parameters
    ----------
    feedback, late, rejected
        New records, in the order in which they arose. Late outcomes are as they came.
    changes
        Keys and values of the changelog, in their order; ``None``: remove. :meth:`Joiner.restore` takes them back.
        The last one is the head.
    skewed
        How many of the rejected were dated too far ahead.
    """

    feedback: list[Joined] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    changes: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    skewed: int = 0

    def __bool__(self) -> bool:
        return bool(self.changes)
