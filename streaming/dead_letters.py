"""Dead letters: records that could not be used, kept as they came, with the place they came from and the reason.

A letter is the record itself (key, value, headers, timestamp) with headers added behind its own. So nothing of it is
lost, whatever it is, and any program that reads Kafka can read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import LeewayError
from engine.records import DeadLetterReason
from streaming.log import Header, Log, Message, Record
from streaming.topics import DEAD_LETTERS, DECISIONS, OUTCOMES

TOPIC = "leeway_dlq_topic"
PARTITION = "leeway_dlq_partition"
OFFSET = "leeway_dlq_offset"
TIMESTAMP_MS = "leeway_dlq_timestamp_ms"
REASON = "leeway_dlq_reason"
DETAIL = "leeway_dlq_detail"
_PREFIX = "leeway_dlq_"

#: Where letters come from: what the join reads.
SOURCES = (DECISIONS, OUTCOMES)
#: A letter must fit where its record did: its headers are small, whatever an error has to say.
_MAX_DETAIL_BYTES = 1_024
#: Why a record became a letter, as it stands in the header.
REASONS = tuple(name.removeprefix("DEAD_LETTER_REASON_").lower() for name in DeadLetterReason.keys()[1:])


@dataclass(frozen=True, slots=True)
class Letter:
    """A record of the topic of dead letters.

    Parameters
    ----------
    partition, offset
        Where the letter lies.
    topic, original_partition, original_offset, timestamp_ms
        Where the record lay, and its time. Topic ``""`` and offsets of -1: not known.
    reason
        One of ``REASONS``; a record that others put there, or a newer version, may have another one or ``""``.
    detail
        In words, what is wrong and what to do.
    key, value, headers
        The record as it came.
    """

    partition: int
    offset: int
    topic: str
    original_partition: int
    original_offset: int
    timestamp_ms: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def place(self) -> str:
        """Name of the letter on the command line: ``PARTITION:OFFSET``."""
        return f"{self.partition}:{self.offset}"


def reason_name(reason: DeadLetterReason.ValueType) -> str:
    """Short lower-case name of a reason, as in headers and on the command line.

    >>> reason_name(DeadLetterReason.DEAD_LETTER_REASON_UNKNOWN_DECISION)
    'unknown_decision'
    """
    return DeadLetterReason.Name(reason).removeprefix("DEAD_LETTER_REASON_").lower()


def dead_letter(record: Record, reason: DeadLetterReason.ValueType, detail: str) -> Message:
    """Return what goes to the dead letters for a record: key, value and headers as they came, and why in headers.

    It goes to the partition of the same number. ``detail`` is cut to 1,024 bytes.
    """
    facts = {
        TOPIC: record.topic,
        PARTITION: str(record.partition),
        OFFSET: str(record.offset),
        TIMESTAMP_MS: str(record.timestamp_ms),
        REASON: reason_name(reason),
        DETAIL: detail,
    }
    # Kafka has records with nothing in them, and headers without a value; the log's messages do not.
    value = b"" if record.key is None and record.value is None else record.value
    own = [(name, content or b"") for name, content in record.headers]
    added = [(name, _cut(text.encode(errors="replace"))) for name, text in facts.items()]
    return Message(DEAD_LETTERS, record.key, value, record.timestamp_ms, (*own, *added), record.partition)


def read_letter(record: Record) -> Letter:
    """Return the letter in a record of the topic; any record is one, if with little to say."""
    # Of equal names the last one counts: a letter may have been a letter before.
    facts = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return Letter(
        partition=record.partition,
        offset=record.offset,
        topic=facts.get(TOPIC, ""),
        original_partition=_number(facts.get(PARTITION), -1),
        original_offset=_number(facts.get(OFFSET), -1),
        timestamp_ms=_number(facts.get(TIMESTAMP_MS), record.timestamp_ms),
        reason=facts.get(REASON, ""),
        detail=facts.get(DETAIL, "no dead letter of Leeway: its headers do not say where it comes from"),
        key=record.key,
        value=record.value,
        headers=tuple(header for header in record.headers if not header[0].startswith(_PREFIX)),
    )


def original(letter: Letter) -> Message:
    """Return the record of a letter, to be appended to its topic again, into the partition of its key.

    Raises ``LeewayError`` where that topic is none that the join reads.
    """
    if letter.topic not in SOURCES:
        raise LeewayError(
            f"letter {letter.place} comes from topic {letter.topic!r}, and replayed are letters from "
            f"{' and '.join(SOURCES)} alone; leave it out"
        )
    return Message(letter.topic, letter.key, letter.value, letter.timestamp_ms, letter.headers)


def scan(log: Log, partition: int, start: int, end: int) -> Iterator[Letter]:
    """Yield the letters of a partition from offset ``start`` to before ``end``, a thousand in memory at a time."""
    while start < end and (records := log.read(DEAD_LETTERS, partition, start)):
        for record in records:
            if record.offset >= end:
                return
            yield read_letter(record)
        start = records[-1].offset + 1


def _cut(text: bytes) -> bytes:
    return (
        text
        if len(text) <= _MAX_DETAIL_BYTES
        else text[: _MAX_DETAIL_BYTES - 3].decode(errors="ignore").encode() + b"..."
    )


def _number(text: str | None, otherwise: int) -> int:
    try:
        return otherwise if text is None else int(text)
    except ValueError:
        return otherwise
