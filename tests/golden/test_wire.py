"""The wire form of the messages is for ever: logs of years are read with it, by programs of any version.

``fields.json`` lists every field of every message. A field that is removed, renumbered or given another type fails;
a new one is added by adding it to the file. ``records.json`` holds the bytes of one of each record of the log,
``messages.json`` what else a message of each topic consists of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from engine.api.leeway.v1 import admin_pb2, parts_pb2, records_pb2, service_pb2
from engine.records import (
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    FALLBACK_REASON_ORACLE_FAILED,
    MODE_LOGGING_ONLY,
    Action,
    Decision,
    Features,
    Feedback,
    Numbers,
    Outcome,
    Slate,
    Texts,
    Value,
)
from streaming.dead_letters import dead_letter, original, read_letter
from streaming.log import Message, Record
from streaming.topics import FEEDBACK
from streaming.wire import feedback_headers, message_of, read_decision, read_outcome

HERE = Path(__file__).parent
FILES: tuple[FileDescriptor, ...] = (
    records_pb2.DESCRIPTOR,
    service_pb2.DESCRIPTOR,
    parts_pb2.DESCRIPTOR,
    admin_pb2.DESCRIPTOR,
)

DECISION = Decision(
    decision_id="3f2a",
    decision_point="offers",
    time_ms=1_767_225_600_000,
    policy_version="g2.17-3fa9c1de",
    context=Features(
        named={
            "country": Value(text="NL"),
            "amount": Value(number=-0.1),
            "taste": Value(numbers=Numbers(values=[1, 2])),
        },
        packed=b"\x00\x00\x80\x3f",
    ),
    actions=[Action(id="süd", features={"price": Value(number=3.5)}, excluded=True), Action(id="north")],
    packed_actions=b"\x00\x01\x02\x03",
    probabilities=[0.0, 1.0],
    chosen=1,
    scores=[0.25, -0.125],
    fallback=FALLBACK_REASON_ORACLE_FAILED,
    fallback_detail="ValueError: no",
    salt="leeway",
    shadow_policy_version="g3.0-0badcafe",
    shadow_probabilities=[0.25, 0.75],
)
#: As it was written before there were shadows.
WITHOUT_SHADOW = Decision()
WITHOUT_SHADOW.CopyFrom(DECISION)
WITHOUT_SHADOW.ClearField("shadow_policy_version")
WITHOUT_SHADOW.ClearField("shadow_probabilities")
#: A caller's own choice, of which it is not known yet whether it is acted on.
CHOICE = Decision(
    decision_id="71d0",
    decision_point="offers",
    time_ms=1_767_225_600_000,
    policy_version="g2.17-3fa9c1de",
    actions=[Action(id="north"), Action(id="south")],
    probabilities=[0.25, 0.75],
    chosen=1,
    mode=MODE_LOGGING_ONLY,
    deferred=True,
)
ACTIVATION = Outcome(decision_id="71d0", time_ms=1_767_225_660_000, activation=True)
OUTCOME = Outcome(decision_id="3f2a", decision_point="offers", outcome_id="o-1", time_ms=1_767_225_660_000, value=0.75)
LIST = Decision(
    decision_id="9c1e",
    decision_point="shop",
    time_ms=1_767_225_600_000,
    policy_version="g1.0-0a1b2c3d",
    context=Features(named={"recent": Value(texts=Texts(values=["i7", "i2"]))}),
    actions=[Action(id="i7"), Action(id="i2")],
    probabilities=[0.25, 0.75],
    chosen=1,
    scores=[0.125, 0.5],
    salt="leeway",
    slate=Slate(
        items=[1, 0],
        propensities=[0.75, 1.0],
        catalogue="5f",
        retrieved=True,
        known=[Action(id="i2", features={"price": Value(number=2.0)}), Action(id="i7")],
    ),
)
LIST_OUTCOME = Outcome(
    decision_id="9c1e",
    decision_point="shop",
    outcome_id="o-2",
    time_ms=1_767_225_660_000,
    value=1.0,
    task="click",
    item="i2",
    slot=0,
)
RECORDS: dict[str, Decision | Outcome | Feedback] = {
    "Decision": DECISION,
    "Decision without a shadow": WITHOUT_SHADOW,
    "Decision of a caller": CHOICE,
    "Outcome": OUTCOME,
    "Feedback": Feedback(
        decision=DECISION, reward=0.75, defaulted=True, outcomes=1, reward_time_ms=1_767_225_660_000
    ),
    "Decision of a list": LIST,
    "Outcome of a list": LIST_OUTCOME,
    "Activation": ACTIVATION,
    "Feedback of a list": Feedback(
        decision=LIST, reward=1.0, outcomes=1, reward_time_ms=1_767_225_660_000, tasks=["click"], slot_values=[1.0, 0.0]
    ),
}  # fmt: skip
GOLDEN: dict[str, str] = json.loads((HERE / "records.json").read_text())


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_written_and_read_as_ever(name: str) -> None:
    record = RECORDS[name]
    assert record.SerializeToString(deterministic=True).hex() == GOLDEN[name]
    assert type(record).FromString(bytes.fromhex(GOLDEN[name])) == record


def test_every_field_of_the_golden_records_is_set() -> None:
    # A field that the samples leave out would not be held by their bytes.
    samples = (record for record in RECORDS.values() if record is not WITHOUT_SHADOW)
    given: dict[Descriptor, set[str]] = {}
    for record in (*samples, DECISION.context, DECISION.actions[0], LIST.slate):
        given.setdefault(record.DESCRIPTOR, set()).update(field.name for field, _ in record.ListFields())
    missing = {kind.name: {field.name for field in kind.fields} - names for kind, names in given.items()}
    assert missing == {kind.name: set() for kind in given}


def kept(message: Message) -> Record:
    """Return a message as a log gives it back."""
    at = (message.topic, 2, 5, message.timestamp_ms)
    return Record(*at, message.key, message.value, message.headers)


def messages() -> dict[str, Message]:
    """Return a message of each topic that others read or write."""
    outcome = message_of(OUTCOME)
    unnamed = Outcome(decision_id="3f2a", time_ms=1_767_225_660_000, value=0.75)
    return {
        "decisions": message_of(DECISION),
        "outcomes": outcome,
        "outcomes, without id and decision point": message_of(unnamed),
        "outcomes of a list, without id": message_of(
            Outcome(decision_id="9c1e", time_ms=1_767_225_660_000, value=1.0, task="click", slot=0)
        ),
        "outcomes, an activation": message_of(ACTIVATION),
        "feedback": Message(
            FEEDBACK, b"3f2a", None, DECISION.time_ms, feedback_headers("offers", "3f2a", DECISION.time_ms)
        ),
        "dead_letters": dead_letter(kept(outcome), DEAD_LETTER_REASON_UNKNOWN_DECISION, "no decision '3f2a'"),
    }


MESSAGES: dict[str, dict[str, object]] = json.loads((HERE / "messages.json").read_text())


@pytest.mark.parametrize("name", messages())
def test_key_headers_and_time_are_as_ever(name: str) -> None:
    message = messages()[name]
    assert MESSAGES[name] == {
        "topic": message.topic,
        "key": (message.key or b"").decode(),
        "timestamp_ms": message.timestamp_ms,
        "partition": message.partition,
        "headers": [[header, value.decode()] for header, value in message.headers],
    }


def test_messages_of_ever_are_read() -> None:
    def golden(name: str, value: str) -> Record:
        form: dict[str, Any] = MESSAGES[name]
        headers = [(header, text.encode()) for header, text in form["headers"]]
        return Record(
            form["topic"], 2, 5, form["timestamp_ms"], form["key"].encode(), bytes.fromhex(GOLDEN[value]), headers
        )

    assert read_decision(golden("decisions", "Decision")) == DECISION
    assert read_outcome(golden("outcomes", "Outcome")) == OUTCOME
    letter = read_letter(golden("dead_letters", "Outcome"))
    assert (letter.topic, letter.original_partition, letter.original_offset) == ("outcomes", 2, 5)
    assert (letter.reason, letter.detail) == ("unknown_decision", "no decision '3f2a'")
    assert original(letter) == message_of(OUTCOME)


JSON_OUTCOMES: dict[str, str] = json.loads((HERE / "outcomes.json").read_text())


@pytest.mark.parametrize("text", JSON_OUTCOMES)
def test_json_outcomes_of_ever_are_read(text: str) -> None:
    record = Record("outcomes", 0, 0, 0, b"3f2a", text.encode(), [("content-type", b"application/json")])
    assert read_outcome(record).SerializeToString(deterministic=True).hex() == JSON_OUTCOMES[text]


def field_form(field: FieldDescriptor) -> list[object]:
    """Return [number, type, label] of a field."""
    kinds = {getattr(FieldDescriptor, name): name for name in dir(FieldDescriptor) if name.startswith("TYPE_")}
    kind = kinds[field.type].removeprefix("TYPE_").lower()
    named: Descriptor | EnumDescriptor | None = field.message_type or field.enum_type
    oneof = field.containing_oneof
    label = "repeated" if field.is_repeated else f"oneof {oneof.name}" if oneof else "singular"
    return [field.number, f"{kind} {named.full_name}" if named else kind, label]


def message_forms(message: Descriptor) -> dict[str, dict[str, list[object]]]:
    """Return the fields of a message and of those inside it, by full name."""
    forms = {message.full_name: {field.name: field_form(field) for field in message.fields}}
    for nested in message.nested_types:
        forms |= message_forms(nested)
    return forms


def wire_form() -> dict[str, dict[str, object]]:
    """Return what the messages are now, in the form of ``fields.json``."""
    form: dict[str, dict[str, object]] = {}
    for file in FILES:
        for message in file.message_types_by_name.values():
            form |= message_forms(message)  # type: ignore[arg-type]
        for enum in file.enum_types_by_name.values():
            form[enum.full_name] = {value.name: value.number for value in enum.values}
        for service in file.services_by_name.values():
            form[service.full_name] = {
                method.name: [method.input_type.full_name, method.output_type.full_name] for method in service.methods
            }
    return form


def test_no_field_is_removed_renumbered_or_given_another_type() -> None:
    golden: dict[str, dict[str, object]] = json.loads((HERE / "fields.json").read_text())
    now = wire_form()
    changed = {
        f"{name}.{member}": f"was {form}, is {now.get(name, {}).get(member)}"
        for name, members in golden.items()
        for member, form in members.items()
        if now.get(name, {}).get(member) != form
    }
    assert changed == {}, "old logs and clients could not be read; give a new field a new number and keep the old one"
    added = {
        name: {member: form for member, form in members.items() if member not in golden.get(name, {})}
        for name, members in now.items()
        if name not in golden or set(members) - set(golden[name])
    }
    assert added == {}, f"add to tests/golden/fields.json: {json.dumps(added)}"


def test_no_number_means_two_fields() -> None:
    # Also of fields that are in the list alone: a number once given is never given again.
    golden: dict[str, dict[str, object]] = json.loads((HERE / "fields.json").read_text())
    for name, members in golden.items():
        numbers = [form[0] for form in members.values() if isinstance(form, list) and isinstance(form[0], int)]
        assert len(numbers) == len(set(numbers)), name
