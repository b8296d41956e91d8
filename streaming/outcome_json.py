"""The JSON form of an outcome, for systems that write outcomes to the log themselves.

``{"decision_id": "3f2a", "value": 1.0, "time": "2026-01-01T12:00:00Z"}``

Here people write by hand, so it is strict: exact types, no unknown keys, and errors that say what to send instead.
:func:`outcome_schema` says the same as JSON Schema, for the other system's tests.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from engine.records import MAX_ID_LENGTH, Outcome

#: Whole numbers of JSON that every program reads alike (RFC 7493).
_MAX_INTEGER = 2**53 - 1
#: What the join takes as a reward.
_MAX_VALUE = 1e100
_MAX_SLOT = 2**31 - 1
_RFC3339 = re.compile(
    r"^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _milliseconds(time: str) -> int:
    return (datetime.fromisoformat(time.upper()) - _EPOCH) // timedelta(milliseconds=1)


def _check_time(time: str) -> str:
    with suppress(ValueError):  # a day that its month does not have
        if _RFC3339.fullmatch(time) and _milliseconds(time) >= 0:
            return time
    raise ValueError("must be a time since 1970 in the form of RFC 3339, such as 2026-01-01T12:00:00.250Z")


def _whole(number: object) -> object:
    # To JSON 5, 5.0 and 5e0 are one number.
    return int(number) if isinstance(number, float) and number.is_integer() else number


Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


class OutcomeJson(BaseModel):
    """An outcome of a decision, as JSON. Exactly one of `time` and `time_ms` says when it happened."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, title="Outcome of a decision")

    # An empty text stands for what was left out, as in the Protobuf form; what is given may not be empty.
    decision_id: Id = Field(
        "", description="the decision's id; left out, it is the key of the message, which it equals"
    )
    decision_point: Id = Field("", description="the decision's decision point; may be left out")
    outcome_id: Id = Field("", description="two outcomes of a decision with one id are the same outcome, sent twice")
    value: float = Field(
        ge=-_MAX_VALUE, le=_MAX_VALUE, allow_inf_nan=False, description="what the reward of the decision is made of"
    )
    time: Annotated[str, AfterValidator(_check_time)] = Field(
        "",
        description="when it happened, as in RFC 3339",
        json_schema_extra={"format": "date-time", "pattern": _RFC3339.pattern},
    )
    time_ms: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, le=_MAX_INTEGER, description="when it happened, milliseconds since 1970-01-01 UTC"
    )
    task: Id = Field("", description="of a recommender: what happened, one of its tasks")
    item: Id = Field("", description="of a recommender: id of the item of the list that it happened to")
    slot: Annotated[int, BeforeValidator(_whole)] = Field(
        -1,
        ge=0,
        le=_MAX_SLOT,
        description="of a recommender: slot of that item, counted from 0; item or slot is enough",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {"time", "time_ms"} & self.model_fields_set
        if len(given) != 1:
            raise ValueError("exactly one of time and time_ms must be given; " + ("drop one" if given else "add one"))
        return self

    def outcome(self, decision_id: str) -> Outcome:
        """Return the record, of ``decision_id`` where this names none."""
        return Outcome(
            decision_id=self.decision_id or decision_id,
            decision_point=self.decision_point,
            outcome_id=self.outcome_id,
            time_ms=_milliseconds(self.time) if self.time else self.time_ms,
            value=self.value,
            task=self.task,
            item=self.item,
            slot=self.slot if "slot" in self.model_fields_set else None,
        )


def outcome_of_json(value: bytes, key: bytes | None) -> Outcome:
    """Return the outcome in a JSON value; a decision id that it does not name is the message's key.

    Raises ``ValueError``, whose text names each field, what was given, and what to send.

    >>> outcome_of_json(b'{"value": 1, "time_ms": 5}', b"3f2a").decision_id
    '3f2a'
    """
    try:
        outcome = OutcomeJson.model_validate_json(value)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_url=False)]
        raise ValueError("; ".join(problems)) from None
    try:
        return outcome.outcome((key or b"").decode())
    except UnicodeDecodeError:
        raise ValueError(
            "decision_id: is missing, and the key is no UTF-8 text; send the decision_id as both"
        ) from None


def outcome_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the JSON form of an outcome.

    What it cannot say: that a month has this day (``format`` does, where a validator checks it), and that the decision
    id equals the message's key.
    """
    schema = OutcomeJson.model_json_schema()
    for field in schema["properties"].values():
        field.pop("default", None)  # marks what was left out, and is no value to send
        del field["title"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:leeway:schema:outcome:v1",
        **schema,
        "oneOf": [{"required": ["time"]}, {"required": ["time_ms"]}],
        "examples": [
            {"decision_id": "3f2a", "value": 1.0, "time": "2026-01-01T12:00:00.250Z", "outcome_id": "click-1"}
        ],
    }


def _explain(problem: Any) -> str:
    where, given = ".".join(map(str, problem["loc"])), reprlib.repr(problem["input"])
    match problem["type"]:
        case "json_invalid":
            return f"the value is not JSON ({problem['ctx']['error']})"
        case "model_type" | "model_attributes_type":
            return f'the value must be an object, such as {{"value": 1.0, "time_ms": 1767268800000}} (got {given})'
        case "extra_forbidden":
            near = difflib.get_close_matches(where, OutcomeJson.model_fields, 1)
            known = ", ".join(OutcomeJson.model_fields)
            return f"{repr(where[:100])[1:-1]}: unknown key; " + (
                f"did you mean {near[0]}?" if near else f"known are {known}"
            )
        case "missing":
            return f"{where}: is missing; add it"
        case "float_type":
            return f"{where}: must be a number, without quotes (got {given})"
        case "int_type":
            return f"{where}: must be a whole number, without quotes (got {given})"
        case "string_type":
            return f"{where}: must be text in quotes, or left out (got {given})"
        case "string_too_short":
            return f"{where}: is empty; give it, or leave it out"
        case "less_than_equal":
            return f"{where}: must be at most {problem['ctx']['le']!r} (got {given})"
        case "greater_than_equal":
            return f"{where}: must be at least {problem['ctx']['ge']!r} (got {given})"
        case _ if not where:
            return str(problem["ctx"]["error"])
        case _:
            return f"{where}: {str(problem['msg']).removeprefix('Value error, ')} (got {given})"
