"""What a record looks like in the log, and what is made of records that others write there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Decision, Outcome
from engine.sealed import SealedDecision
from streaming.log import Header, Record
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import UnreadableError, feedback_headers, message_of, read_decision, read_outcome, sized_messages

DECISION = Decision(decision_id="3f2a", decision_point="offers", time_ms=1_767_225_600_007, probabilities=[1.0])
OUTCOME = Outcome(
    decision_id="3f2a", decision_point="offers", outcome_id="click", time_ms=1_767_225_660_000, value=0.75
)
BARE = Outcome(decision_id="3f2a", time_ms=1_767_225_660_000, value=0.75)
PROTOBUF = [("content-type", b"application/protobuf")]
JSON = [("content-type", b"application/json")]


def record(
    value: bytes | None, key: bytes | None = b"3f2a", headers: Sequence[Header] = (), topic: str = OUTCOMES
) -> Record:
    return Record(topic, 0, 7, 1, key, value, headers)


def kept(sent: Decision | Outcome) -> Record:
    """Return what a log gives back of a record that was sent to it."""
    message = message_of(sent)
    return Record(message.topic, 0, 0, message.timestamp_ms, message.key, message.value, message.headers)


# what is written


def test_what_is_written_is_read() -> None:
    assert (kept(DECISION).topic, kept(OUTCOME).topic) == (DECISIONS, OUTCOMES)
    assert read_decision(kept(DECISION)) == DECISION
    assert read_outcome(kept(OUTCOME)) == OUTCOME
    assert read_outcome(kept(BARE)) == BARE


@pytest.mark.parametrize("time_ms", [DECISION.time_ms, 2**62])
def test_a_sealed_decision_is_written_as_the_decision_is(time_ms: int) -> None:
    made = Decision(decision_id="\u00fc", decision_point="offers", time_ms=time_ms)
    sealed = SealedDecision("\u00fc", "offers", time_ms, 1.0, made.SerializeToString(), b"")
    assert message_of(sealed) == message_of(made)
    for record in (sealed, made, OUTCOME, BARE):
        [message], [size] = sized_messages([record])
        names_and_contents = [len(part) for header in message.headers for part in header]
        assert size == len(message.key or b"") + len(message.value or b"") + sum(names_and_contents)


def test_records_that_follow_each_other_are_written_as_each_alone() -> None:
    sealed = [
        SealedDecision(decision_id, point, time_ms, 1.0, b"\x0a\x01x", b"")
        for decision_id, point, time_ms in (
            ("a", "p", 5),
            ("b", "p", 5),
            ("c", "q", 5),
            ("d", "q", 2**62),
            ("e", "p", 5),
        )
    ]
    records: list[Decision | SealedDecision | Outcome] = [*sealed[:2], OUTCOME, *sealed[2:], DECISION]
    messages, sizes = sized_messages(records)
    assert messages == [message_of(record) for record in records]
    assert sizes == [sized_messages([record])[1][0] for record in records]


def test_events_have_the_attributes_that_cloudevents_requires() -> None:
    for headers in (message_of(DECISION).headers, message_of(BARE).headers, feedback_headers("offers", "3f2a", 0)):
        attributes = dict(headers)
        assert len(attributes) == len(headers)
        assert {"ce_specversion", "ce_id", "ce_source", "ce_type"} <= attributes.keys()
        assert attributes["ce_specversion"] == b"1.0"
        assert attributes["content-type"] == b"application/protobuf"
        assert all(attributes.values())


def test_no_two_events_of_one_source_have_one_id() -> None:
    # CloudEvents: consumers take two events of one source and id for one. A client may use any text as an id.
    outcomes = [
        OUTCOME, BARE, replace_fields(BARE, value=0.5), replace_fields(BARE, time_ms=5),
        replace_fields(OUTCOME, outcome_id="3f2a"), replace_fields(OUTCOME, outcome_id="feedback"),
        replace_fields(OUTCOME, decision_id="other"),
    ]  # fmt: skip
    headers = [message_of(outcome).headers for outcome in outcomes]
    headers += [message_of(DECISION).headers, feedback_headers("offers", "3f2a", 0)]
    ids = [dict(each)["ce_id"] for each in headers]
    assert len(set(ids)) == len(ids)


def test_the_same_outcome_sent_twice_is_one_event() -> None:
    for outcome in (OUTCOME, BARE):
        assert message_of(replace_fields(outcome)).headers == message_of(outcome).headers


def replace_fields(outcome: Outcome, **fields: object) -> Outcome:
    copy = Outcome.FromString(outcome.SerializeToString())
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_time_is_that_of_the_record_whatever_it_is(time_ms: int) -> None:
    attributes = dict(feedback_headers("offers", "3f2a", time_ms))
    if "ce_time" in attributes:
        written = datetime.strptime(attributes["ce_time"].decode(), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        since = written - datetime(1970, 1, 1, tzinfo=UTC)
        assert (since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000) == time_ms
    else:  # RFC 3339 has years of four digits
        assert not -62_135_596_800_000 <= time_ms < 253_402_300_800_000


def test_the_time_has_milliseconds_and_its_zone() -> None:
    times = [dict(feedback_headers("offers", "3f2a", time))["ce_time"] for time in (0, 1_767_225_600_007, -1)]
    assert times == [b"1970-01-01T00:00:00.000Z", b"2026-01-01T00:00:00.007Z", b"1969-12-31T23:59:59.999Z"]


# what is read


@pytest.mark.parametrize(
    "headers",
    [
        [],
        PROTOBUF,
        [("Content-Type", b"Application/Protobuf; proto=leeway.v1.Outcome")],
        [("trace", b"\xff"), ("content-type", b"application/protobuf")],
    ],
)
def test_protobuf_is_read_with_and_without_a_content_type(headers: list[Header]) -> None:
    assert read_outcome(record(OUTCOME.SerializeToString(), headers=headers)) == OUTCOME


@pytest.mark.parametrize("form", [b"application/json", b"application/json; charset=utf-8", b"Application/JSON"])
@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_json_is_read_beside_protobuf(name: str, form: bytes) -> None:
    value = b'{"decision_point": "offers", "outcome_id": "click", "value": 0.75, "time": "2026-01-01T01:01:00+01:00"}'
    assert read_outcome(record(value, headers=[(name, form)])) == OUTCOME


FORMS = [b"text/csv", b"application/cloudevents+json", b"", b"\xff"]


@pytest.mark.parametrize("form", FORMS)
def test_another_form_is_refused_and_the_known_ones_are_named(form: bytes) -> None:
    with pytest.raises(UnreadableError, match=r"content-type: .* application/protobuf or application/json$"):
        read_outcome(record(b"3f2a,0.75", headers=[("content-type", form)]))


@pytest.mark.parametrize("form", [*FORMS, *dict(JSON).values()])
def test_the_protobuf_of_its_key_is_read_whatever_the_headers_say(form: bytes) -> None:
    headers = [("content-type", form)]
    assert read_outcome(record(OUTCOME.SerializeToString(), headers=headers)) == OUTCOME
    assert read_decision(record(DECISION.SerializeToString(), headers=headers, topic=DECISIONS)) == DECISION


def test_decisions_are_protobuf_alone() -> None:
    with pytest.raises(UnreadableError, match=r"'application/json' is not read .* send application/protobuf$"):
        read_decision(record(b"{}", headers=JSON, topic=DECISIONS))


@pytest.mark.parametrize("headers", [PROTOBUF, JSON, []])
@pytest.mark.parametrize(
    ("key", "words"), [(b"other", "has the key b'other'"), (None, "has no key"), (b"3f2a ", "b'3f2a '")]
)
def test_a_key_that_is_not_the_decision_id_is_refused(headers: list[Header], key: bytes | None, words: str) -> None:
    value = b'{"decision_id": "3f2a", "value": 1, "time_ms": 5}' if headers == JSON else OUTCOME.SerializeToString()
    with pytest.raises(UnreadableError) as refused:
        read_outcome(record(value, key, headers))
    assert words in str(refused.value)
    assert "send the decision_id as the key" in str(refused.value)


def test_a_decision_in_the_wrong_place_is_refused() -> None:
    with pytest.raises(UnreadableError, match="another partition"):
        read_decision(record(DECISION.SerializeToString(), b"other", topic=DECISIONS))


@pytest.mark.parametrize("topic", [DECISIONS, OUTCOMES])
def test_what_is_no_record_is_refused(topic: str) -> None:
    read = read_decision if topic == DECISIONS else read_outcome
    for value, words in [
        (None, "no value"),
        (b"\xff\xff", "in Protobuf"),
        (b' {"value": 1}', "for JSON send the header content-type: application/json"),
    ]:
        with pytest.raises(UnreadableError, match=words):
            read(record(value, topic=topic))


@given(st.binary(max_size=80), st.binary(max_size=20) | st.none(), st.sampled_from([PROTOBUF, JSON, []]))
def test_bytes_of_any_kind_are_read_or_refused(value: bytes, key: bytes | None, headers: list[Header]) -> None:
    try:
        outcome = read_outcome(record(value, key, headers))
    except UnreadableError:
        return
    assert outcome.decision_id.encode() == key
