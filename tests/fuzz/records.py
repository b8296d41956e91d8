"""Readers of the log's records: what other systems write into it, and what ours wrote and a disk has damaged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from google.protobuf.message import DecodeError

from engine.errors import LeewayError, LogError
from engine.policy import Policy
from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    Acknowledgement,
    Alarm,
    Decision,
    Feedback,
    Generation,
    JoinHead,
    Outcome,
    Slate,
)
from engine.replay import mismatch
from streaming.changelog import block_key, head_of
from streaming.dead_letters import dead_letter, original, read_letter
from streaming.intake import feedback_of, parsed
from streaming.interop import fits
from streaming.join import Joiner, Source
from streaming.log import Record
from streaming.patience import LEAST_PATIENCE_MS
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import UnreadableError, message_of, read_decision, read_outcome
from tests.engine import samples
from tests.fuzz.harness import Harness
from tests.streaming import joining
from training.archive.columns import to_table

FORMS = (b"application/protobuf", b"application/json", b"text/plain", b"Application/JSON; charset=utf-8", b"\xff")
_NOW_MS = 10_000


def _record(topic: str, key: bytes | None, value: bytes, form: bytes | None = None) -> Record:
    return Record(topic, 0, 7, 1_000, key, value, () if form is None else (("content-type", form),))


def decision_seeds() -> list[bytes]:
    """Return decisions as they are logged."""
    plain = joining.decision(decision_id="d")
    full = Decision(
        decision_id="d",
        decision_point=samples.NAME,
        time_ms=1_000,
        policy_version=_policy().version,
        context=samples.context(),
        actions=samples.actions("south"),
        probabilities=[0.5, 0.25, 0.0, 0.25],
        chosen=0,
        scores=[0.1, 0.2, 0.3, 0.4],
        salt="leeway",
    )
    listed = Decision(
        decision_id="d", decision_point="shop", time_ms=1_000, slate=Slate(items=[1, 0], propensities=[0.5, 0.5])
    )
    return [message.SerializeToString() for message in (plain, full, listed)]


def outcome_seeds() -> list[bytes]:
    """Return outcomes in both of their forms; the first byte chooses the content type."""
    binary = [joining.outcome(0.5), joining.activation(), Outcome(decision_id="d", value=1.0, task="click", slot=2)]
    texts = [
        b'{"decision_id": "d", "value": 1.0, "time": "2026-01-01T12:00:00.250Z", "outcome_id": "click-1"}',
        b'{"value": 1, "time_ms": 5, "task": "click", "item": "i1", "slot": 3}',
    ]
    return [b"\0" + outcome.SerializeToString() for outcome in binary] + [b"\1" + text for text in texts]


@cache
def _policy() -> Policy:
    return samples.make_policy()


def _read_outcome(data: bytes, _: Path) -> Outcome:
    return read_outcome(_record(OUTCOMES, b"d", data[1:], FORMS[(data[0] if data else 0) % len(FORMS)]))


def _read_decision(data: bytes, _: Path) -> None:
    decision = read_decision(_record(DECISIONS, b"d", data))
    message_of(decision)
    mismatch(decision, _policy())
    decision.decision_point, decision.policy_version = samples.NAME, _policy().version
    mismatch(decision, _policy())


def _join(data: bytes, _: Path) -> None:
    """Join what a record holds, whichever it is, between good ones; a restart reads what was written."""
    joiner = Joiner(joining.POINTS)
    joiner.on_time(_NOW_MS, 1_000)
    joining.hand_in(joiner, joining.decision(decision_id="before"))
    for topic in (DECISIONS, OUTCOMES):
        for form in FORMS[:2]:
            key = _key(data, topic)
            record = _record(topic, key, data, form)
            try:
                if topic == DECISIONS:
                    joiner.on_decision(read_decision(record), record)
                else:
                    joiner.on_outcome(read_outcome(record), record)
            except UnreadableError as error:
                joiner.on_unreadable(record, str(error))
    joining.hand_in(joiner, joining.outcome(0.5, decision_id="before"))
    written = joiner.drain()
    again = joining.restored(written.changes, joining.POINTS)
    for source in Source:
        again.on_end(source, _NOW_MS)
    for source in Source:  # it was over when it was read, and waited
        again.on_end(source, _NOW_MS + LEAST_PATIENCE_MS)
    effects = again.drain()
    for record, reason, problem in ((rejected[2], rejected[0], rejected[1]) for rejected in written.rejected):
        dead_letter(record, reason, problem)
    assert b"before" in [key for key, *_ in effects.feedback], "a good decision got no feedback beside a bad record"


def _key(data: bytes, topic: str) -> bytes:
    kind = Decision if topic == DECISIONS else Outcome
    try:
        return kind.FromString(data).decision_id.encode()
    except DecodeError:
        return b"d"


def _feedback(data: bytes, _: Path) -> None:
    feedback = feedback_of(_record("feedback", b"d", data))
    if feedback is not None and fits(samples.POINT, feedback) is None:
        to_table(samples.POINT, [feedback])


def _feedback_seeds() -> Sequence[bytes]:
    return [
        Feedback(decision=Decision.FromString(data), reward=0.5, outcomes=1).SerializeToString()
        for data in decision_seeds()[:2]
    ]


def _parsed(data: bytes, _: Path) -> None:
    for kind in (Alarm, Generation, Acknowledgement, JoinHead):
        parsed(_record("alarms", None, data), kind)


def _parsed_seeds() -> Sequence[bytes]:
    return [
        Alarm(decision_point="offers", detected_ms=1_000).SerializeToString(),
        Generation(decision_point="offers").SerializeToString(),
    ]


def _state() -> list[tuple[bytes, bytes | None]]:
    joiner = Joiner(joining.POINTS)
    items = [joining.decision(decision_id=f"d{n}") for n in range(3)]
    waits = joining.outcome(0.5, decision_id="unknown")
    told = joining.feed(joiner, *items, joining.outcome(0.25, decision_id="d1"), waits)
    return told.changes


def _restore(data: bytes, _: Path) -> None:
    """Begin with a state of which one block, or the head, is the input: its first byte says which."""
    changes = _state()
    which = (data[0] if data else 0) % len(changes)
    changes[which] = (changes[which][0], data[1:])
    head = head_of(changes[-1][1] or b"")
    joiner = Joiner(joining.POINTS)
    joiner.restore(head, [*changes, (block_key(10**6), None)])
    joining.hand_in(joiner, joining.decision(decision_id="after"))
    for source in Source:
        joiner.on_end(source, _NOW_MS)
    for key, _point, _time_ms, value in joiner.drain().feedback:
        feedback_of(_record("feedback", key, value))
    joiner.accounting()


def _state_seeds() -> Sequence[bytes]:
    return [bytes([place]) + (value or b"") for place, (_, value) in enumerate(_state())]


def _letter(data: bytes, _: Path) -> None:
    """A letter whose headers are the lines of the input."""
    parts = [line.partition(b"=") for line in data.split(b"\n")]
    headers = tuple((name.decode(errors="replace"), value) for name, _, value in parts)
    original(read_letter(Record("dead_letters", 0, 1, 2, b"key", b"value", headers)))


def _letter_seeds() -> Sequence[bytes]:
    record = _record(OUTCOMES, b"d", b"value", FORMS[1])
    headers = dead_letter(record, DEAD_LETTER_REASON_INVALID, "value 2 is out of range").headers
    return [b"\n".join(name.encode() + b"=" + (value or b"") for name, value in headers)]


HARNESSES = (
    Harness("decision", decision_seeds, _read_decision, (UnreadableError,)),
    Harness("outcome", outcome_seeds, _read_outcome, (UnreadableError,), 400),
    Harness("join", lambda: [*decision_seeds(), *(seed[1:] for seed in outcome_seeds())], _join, mutations=150),
    Harness("feedback", _feedback_seeds, _feedback),
    Harness("parsed", _parsed_seeds, _parsed),
    Harness("join_state", _state_seeds, _restore, (LogError,), 300),
    Harness("dead_letter", _letter_seeds, _letter, (LeewayError,)),
)
