"""How records stand in the log: Protobuf values, the decision id as key, and headers that say what they are."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from engine.records import Decision, Outcome
from streaming.log import Header, Message, Record
from streaming.topics import DECISIONS, OUTCOMES


class UnreadableError(ValueError):
    """The bytes of a record are not what its topic and headers promise; the text says why."""


def message_of(record: Decision | Outcome) -> Message:
    """Return how a record goes to the log: key is the decision id, so that a decision and its outcomes meet."""
    topic = DECISIONS if isinstance(record, Decision) else OUTCOMES
    return Message(topic, record.decision_id.encode(), record.SerializeToString(), record.time_ms)


def feedback_headers(decision_point: str, decision_id: str, time_ms: int) -> tuple[Header, ...]:
    """Return the headers of a feedback record."""
    return ()


def read_decision(record: Record) -> Decision:
    """Return the decision in a record; raises ``UnreadableError``."""
    try:
        return Decision.FromString(record.value or b"")
    except DecodeError as error:
        raise UnreadableError(str(error)) from None


def read_outcome(record: Record) -> Outcome:
    """Return the outcome in a record, in whichever form its content type names; raises ``UnreadableError``."""
    try:
        return Outcome.FromString(record.value or b"")
    except DecodeError as error:
        raise UnreadableError(str(error)) from None
