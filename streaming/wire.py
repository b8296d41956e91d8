"""How records stand in the log: the decision id as key, headers that say what they are, Protobuf or JSON as value.

The headers are those of CloudEvents 1.0 in the binary mode of its Kafka binding (*Kafka Protocol Binding for
CloudEvents*, 1.0.2): attribute ``id`` is the header ``ce_id``, and ``content-type`` names the form of the value. What
is written here is Protobuf. Outcomes come from other systems too, and may be JSON (:mod:`streaming.outcome_json`).

A value that is the Protobuf of its key's record is read as such, whatever the headers say: nothing else looks like it,
and so the headers of most records need not be looked at. For any other value the content type says what it should be;
without one, Protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.message import DecodeError

from engine.records import Decision, Outcome
from engine.sealed import SealedDecision
from streaming.log import Header, Message, Record
from streaming.outcome_json import outcome_of_json
from streaming.topics import DECISIONS, OUTCOMES

PROTOBUF = b"application/protobuf"
JSON = b"application/json"

# Names are ASCII and lower case in the binding; the content type stands first, so that readers find it at once.
_CONTENT_TYPE: Header = ("content-type", PROTOBUF)
_SPECVERSION: Header = ("ce_specversion", b"1.0")
_DECISION: Header = ("ce_type", b"leeway.decision.v1")
_OUTCOME: Header = ("ce_type", b"leeway.outcome.v1")
_FEEDBACK: Header = ("ce_type", b"leeway.feedback.v1")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTIONS = [b".%03dZ" % milliseconds for milliseconds in range(1_000)]


class UnreadableError(ValueError):
    """A record is not what its topic and headers promise; the text names what is wrong and what to send instead."""


def message_of(record: Decision | SealedDecision | Outcome) -> Message:
    """Return how a record goes to the log: key is the decision id, so that a decision and its outcomes meet."""
    return sized_messages([record])[0][0]


def sized_messages(records: Iterable[Decision | SealedDecision | Outcome]) -> tuple[list[Message], list[int]]:
    """Return what :func:`message_of` does of each, and how many bytes key, value and headers of each have together."""
    messages, sizes = [], []
    point, time_ms = "", -1
    for record in records:
        if isinstance(record, SealedDecision):
            if record.time_ms != time_ms or record.decision_point != point:  # those of a batch have the same
                point, time_ms = record.decision_point, record.time_ms
                common, size = _common(_DECISION, point)
                time, time_size = _time(time_ms)
                size += time_size
            identity = record.decision_id.encode()
            messages.append(Message(DECISIONS, identity, record.data, time_ms, (*common, ("ce_id", identity), *time)))
            sizes.append(size + 2 * len(identity) + len(record.data))
        else:
            message = _message(record)
            messages.append(message)
            headers = sum([len(name) + len(value) for name, value in message.headers])  # names are ASCII
            sizes.append(len(message.key or b"") + len(message.value or b"") + headers)
    return messages, sizes


def _message(record: Decision | Outcome) -> Message:
    decision_id, point, time_ms = record.decision_id, record.decision_point, record.time_ms
    if isinstance(record, Decision):
        topic, headers = DECISIONS, _headers(_DECISION, decision_id, point, time_ms)
    else:
        # Without an id, two outcomes of one time and value are one to the join, and so are their events.
        said = "activation" if record.activation else repr(record.value)
        outcome_id = record.outcome_id or f"{time_ms}:{said}{_place(record)}"
        topic, headers = OUTCOMES, _headers(_OUTCOME, f"{decision_id}/{outcome_id}", point, time_ms)
    return Message(topic, decision_id.encode(), record.SerializeToString(), time_ms, headers)


def feedback_headers(decision_point: str, decision_id: str, time_ms: int) -> tuple[Header, ...]:
    """Return the headers of a feedback record.

    Parameters
    ----------
    decision_point, decision_id
        Of the decision.
    time_ms
        When it was made, milliseconds since 1970-01-01 UTC.

    Examples
    --------
    >>> dict(feedback_headers("offers", "3f2a", 1_767_225_600_000))["ce_id"]
    b'3f2a#feedback'
    """
    return _headers(_FEEDBACK, f"{decision_id}#feedback", decision_point, time_ms)


def read_decision(record: Record) -> Decision:
    """Return the decision in a record; raises ``UnreadableError``."""
    key = record.key
    if key and record.value:
        try:
            decision = Decision.FromString(record.value)
        except DecodeError:
            pass  # why is said below
        else:
            if decision.decision_id.encode() == key:
                return decision
    value, form = _content(record)
    if form != PROTOBUF:
        raise UnreadableError(_unknown_form(form, [PROTOBUF]))
    try:
        decision = Decision.FromString(value)
    except DecodeError as error:
        raise UnreadableError(_not_protobuf("decision", value, error)) from None
    _check_key(record, decision.decision_id)
    return decision


def read_outcome(record: Record) -> Outcome:
    """Return the outcome in a record, which may be Protobuf or JSON; raises ``UnreadableError``."""
    key = record.key
    if key and record.value:
        try:
            outcome = Outcome.FromString(record.value)
        except DecodeError:
            pass  # JSON; or why not is said below
        else:
            if outcome.decision_id.encode() == key:
                return outcome
    value, form = _content(record)
    read = _OUTCOME_FORMS.get(form)
    if read is None:
        raise UnreadableError(_unknown_form(form, _OUTCOME_FORMS))
    outcome = read(value, record.key)
    _check_key(record, outcome.decision_id)
    return outcome


def _place(outcome: Outcome) -> str:
    """Return what tells outcomes of one list from each other; empty for those of a decision without slots."""
    slot = str(outcome.slot) if outcome.HasField("slot") else ""
    return f":{outcome.task}:{outcome.item}:{slot}" if outcome.task or outcome.item or slot else ""


def _headers(kind: Header, event_id: str, decision_point: str, time_ms: int) -> tuple[Header, ...]:
    # An event is known by source and id together: a decision, its outcomes and its feedback need ids of their own.
    common, _ = _common(kind, decision_point)
    time, _ = _time(time_ms)
    return (*common, ("ce_id", event_id.encode()), *time)


@lru_cache(maxsize=1_024)
def _common(kind: Header, decision_point: str) -> tuple[tuple[Header, ...], int]:
    """Return the headers that all events of a kind and a decision point have, and the bytes of these and of a name."""
    source: Header = ("ce_source", f"/leeway/{decision_point}".rstrip("/").encode())
    headers = (_CONTENT_TYPE, _SPECVERSION, kind, source)
    return headers, len("ce_id") + sum(len(name) + len(value) for name, value in headers)


@lru_cache(maxsize=64)  # what is recorded at one time has one header, and the log writes that once
def _time(time_ms: int) -> tuple[tuple[Header, ...], int]:
    """Return the header of a time, and its bytes."""
    second = _second(time_ms // 1_000)
    if second is None:  # the attribute is optional, and a wrong clock must stop no record
        return (), 0
    value = second + _FRACTIONS[time_ms % 1_000]
    return (("ce_time", value),), len("ce_time") + len(value)


@lru_cache(maxsize=4_096)
def _second(seconds: int) -> bytes | None:
    """Return a time in whole seconds since 1970 as RFC 3339 without the zone; ``None`` outside the years 1 to 9999."""
    try:
        return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat().encode()
    except OverflowError:
        return None


def _content(record: Record) -> tuple[bytes, bytes]:
    """Return the value of a record and the form that its headers name."""
    if record.value is None:
        raise UnreadableError("the record has no value; decisions and outcomes are never deleted by key")
    for name, form in record.headers:
        if name.lower() == "content-type":
            if form != PROTOBUF:  # parameters such as charset do not matter: JSON is UTF-8
                form = (form or b"").partition(b";")[0].strip().lower()
            return record.value, form
    return record.value, PROTOBUF


def _outcome_of_protobuf(value: bytes, key: bytes | None) -> Outcome:
    try:
        return Outcome.FromString(value)
    except DecodeError as error:
        raise UnreadableError(_not_protobuf("outcome", value, error)) from None


def _outcome_of_json(value: bytes, key: bytes | None) -> Outcome:
    try:
        return outcome_of_json(value, key)
    except ValueError as error:
        raise UnreadableError(str(error)) from None


_OUTCOME_FORMS: dict[bytes, Callable[[bytes, bytes | None], Outcome]] = {
    PROTOBUF: _outcome_of_protobuf,
    JSON: _outcome_of_json,
}


def _check_key(record: Record, decision_id: str) -> None:
    key = record.key
    if key == decision_id.encode():
        return
    found = "has no key" if key is None else f"has the key {key[:300]!r}"
    raise UnreadableError(
        f"the message {found} and its decision_id is {decision_id[:300]!r}: it would lie in another partition than the "
        "decision, and never meet it; send the decision_id as the key"
    )


def _unknown_form(form: bytes, known: Iterable[bytes]) -> str:
    names = " or ".join(name.decode() for name in known)
    return f"content-type: {form[:100].decode(errors='replace')!r} is not read from this topic; send {names}"


def _not_protobuf(kind: str, value: bytes, error: DecodeError) -> str:
    hint = "; for JSON send the header content-type: application/json" if value.lstrip()[:1] == b"{" else ""
    return f"the value is no {kind} in Protobuf ({error}){hint}"


__all__ = [
    "JSON",
    "PROTOBUF",
    "UnreadableError",
    "feedback_headers",
    "message_of",
    "read_decision",
    "read_outcome",
    "sized_messages",
]
