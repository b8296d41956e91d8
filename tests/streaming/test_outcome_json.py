"""The JSON form of outcomes: the model and its schema say the same, and errors say what to send instead."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Outcome
from streaming.outcome_json import outcome_of_json, outcome_schema

GOOD: dict[str, Any] = {"decision_id": "3f2a", "value": 1.0, "time_ms": 1_767_268_800_250}

FORMATS = jsonschema.FormatChecker(formats=())


def is_time(instance: object) -> bool:
    # The pattern leaves one thing to the format: which days a month has.
    return not isinstance(instance, str) or bool(datetime.fromisoformat(instance.upper()))


FORMATS.checks("date-time", raises=ValueError)(is_time)


def accepted_by_schema(document: object) -> bool:
    return bool(jsonschema.Draft202012Validator(outcome_schema(), format_checker=FORMATS).is_valid(document))


def problem(document: object) -> str:
    """Return what is wrong with a document, or nothing."""
    try:
        outcome_of_json(json.dumps(document).encode(), b"3f2a")
    except ValueError as error:
        return str(error)
    return ""


def with_(**fields: object) -> dict[str, Any]:
    return GOOD | fields


def timed(time: object) -> dict[str, Any]:
    return {"value": 1, "time": time}


def test_the_schema_is_a_schema_and_its_examples_are_good() -> None:
    schema = outcome_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    for example in schema["examples"]:
        assert accepted_by_schema(example)
        assert problem(example) == ""


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        (GOOD, Outcome(decision_id="3f2a", value=1, time_ms=1_767_268_800_250)),
        (timed("2026-01-01T12:00:00.25Z"), Outcome(decision_id="3f2a", value=1, time_ms=1_767_268_800_250)),
        (timed("2026-01-01t12:00:00.25z"), Outcome(decision_id="3f2a", value=1, time_ms=1_767_268_800_250)),
        (timed("2026-01-01t13:30:00.250999999+01:30"), Outcome(decision_id="3f2a", value=1, time_ms=1_767_268_800_250)),
        (
            with_(decision_point="offers", outcome_id="o\u00fc", value=-3, time_ms=0),
            Outcome(decision_id="3f2a", decision_point="offers", outcome_id="o\u00fc", value=-3),
        ),
        (with_(time_ms=5.0), Outcome(decision_id="3f2a", value=1, time_ms=5)),
    ],
)
def test_good_documents_become_outcomes(document: dict[str, Any], outcome: Outcome) -> None:
    assert outcome_of_json(json.dumps(document).encode(), b"3f2a") == outcome
    assert accepted_by_schema(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ["value: is missing"]),
        ([GOOD], ["must be an object", '{"value": 1.0, "time_ms": 1767268800000}']),
        ("text", ["must be an object", "'text'"]),
        (with_(value="1.0"), ["value: must be a number, without quotes (got '1.0')"]),
        (with_(value=True), ["value: must be a number", "True"]),
        (with_(value=None), ["value: must be a number", "None"]),
        (with_(value=1e101), ["value: must be at most 1e+100 (got 1e+101)"]),
        (with_(value=10**400), ["value:", "finite"]),
        (with_(time_ms="5"), ["time_ms: must be a whole number", "'5'"]),
        (with_(time_ms=5.5), ["time_ms: must be a whole number", "5.5"]),
        (with_(time_ms=True), ["time_ms: must be a whole number", "True"]),
        (with_(time_ms=-1), ["time_ms: must be at least 0 (got -1)"]),
        (with_(time_ms=2**53), ["time_ms:", "9007199254740991"]),
        (with_(decision_id=""), ["decision_id: is empty"]),
        (with_(decision_id=7), ["decision_id: must be text", "7"]),
        (with_(outcome_id=None), ["outcome_id: must be text in quotes, or left out", "None"]),
        (with_(outcome_id="x" * 257), ["outcome_id:", "256"]),
        (with_(time="2026-01-01T12:00:00Z"), ["exactly one of time and time_ms", "drop one"]),
        ({"value": 1}, ["exactly one of time and time_ms", "add one"]),
        (timed("2026-02-30T12:00:00Z"), ["time:", "RFC 3339", "2026-02-30"]),
        (timed("2026-01-01T12:00:00"), ["time:", "RFC 3339", "such as 2026-01-01T12:00:00.250Z"]),
        (timed("2026-01-01"), ["time:"]),
        (timed("2026-01-01 12:00:00Z"), ["time:"]),
        (timed("2026-01-01T24:00:00Z"), ["time:"]),
        (timed("1969-12-31T23:59:59Z"), ["time:", "since 1970"]),
        (timed("2026-01-01T12:00:00Z\n"), ["time:"]),
        (timed("٢026-01-01T12:00:00Z"), ["time:"]),
        (timed(1_767_268_800), ["time: must be text", "1767268800"]),
        (with_(decisionId="3f2a"), ["decisionId: unknown key; did you mean decision_id?"]),
        (with_(valeu=1), ["valeu: unknown key; did you mean value?"]),
        (with_(**{"\x1b[2J": 1}), ["\\x1b[2J: unknown key"]),
        (with_(colour="red"), ["colour: unknown key; known are decision_id, decision_point, outcome_id, value, time"]),
    ],
)
def test_bad_documents_are_refused_by_model_and_schema_alike(document: object, words: list[str]) -> None:
    found = problem(document)
    assert [word for word in words if word not in found] == []
    assert not accepted_by_schema(document)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"value": NaN, "time_ms": 5}', "value: .*finite"),
        (b'{"value": 1e999, "time_ms": 5}', "value: .*finite"),
        (b'{"value": 1, "time_ms": 5, "decision_id": "\\ud800"}', "is not JSON"),
        (b'{"value": ' + b"[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_json_document_is_refused(value: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        outcome_of_json(value, b"3f2a")


def test_every_problem_is_told_at_once_in_few_words() -> None:
    found = problem({"value": "x" * 10_000, "time_ms": [0] * 10_000, "k" * 10_000: 1})
    assert [found.count(name) for name in ("value:", "time_ms:", "unknown key")] == [1, 1, 1]
    assert len(found) < 600


def test_the_key_names_the_decision_where_the_document_does_not() -> None:
    value = b'{"value": 1, "time_ms": 5}'
    assert outcome_of_json(value, "süd".encode()).decision_id == "süd"
    with pytest.raises(ValueError, match="decision_id: is missing, and the key is no UTF-8"):
        outcome_of_json(value, b"\xff")


digits = st.integers(0, 99).map("{:02d}".format)
times = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["1969", "1971", "2026", "9999", "10000"]), digits, digits,
    st.sampled_from("Tt "), st.integers(0, 25).map("{:02d}".format), digits, digits,
    st.sampled_from(["", ".", ".5", ".123456789", ".1234567890"]), st.sampled_from(["Z", "z", "", "+01:00", "-2359"]),
)  # fmt: skip
#: What a good time looks like, so that not all are refused.
good_times = st.datetimes(datetime(1971, 1, 1), datetime(9999, 1, 1)).map(lambda time: time.isoformat() + "Z")
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.fixed_dictionaries(
    {},
    optional={
        "decision_id": st.just("3f2a") | leaves,
        "decision_point": st.text(max_size=260),
        "outcome_id": st.text(min_size=1) | leaves,
        "value": st.floats(-1e101, 1e101) | leaves,
        "time": good_times | times | leaves,
        "time_ms": st.integers(-1, 2**53) | st.floats(0, 1e15) | leaves,
        "valu": leaves,
    },
)


@given(documents | leaves | st.lists(leaves))
def test_model_and_schema_accept_the_same_documents(document: object) -> None:
    found = problem(document)
    assert (found == "") == accepted_by_schema(document), found


@given(
    st.fixed_dictionaries(
        {"value": st.floats(-1e100, 1e100) | st.integers(-5, 5)},
        optional={"outcome_id": st.text(min_size=1, max_size=256)},
    ),
    good_times.map(lambda time: {"time": time}) | st.integers(0, 2**53 - 1).map(lambda time: {"time_ms": time}),
)
def test_both_accept_what_is_good(document: dict[str, Any], time: dict[str, Any]) -> None:
    assert problem(document | time) == ""
    assert accepted_by_schema(document | time)
