"""What all parts of the configuration share: strict models, names, durations."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

NAME = r"^[a-z][a-z0-9_]{0,62}$"
FLOAT32_MAX = 3.4028234663852886e38
_DURATION = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_duration(value: object) -> int:
    """Return milliseconds of a duration such as ``500ms``, ``10m``, ``36h`` or ``30d``.

    >>> parse_duration("10m")
    600000
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is no duration; write a number with a unit, such as 500ms, 30s, 10m, 36h, 7d or 2w"
        )
    return round(float(match[1]) * _UNIT_MS[match[2]])


#: Context for validating what people write: there a number without a unit is an error, not milliseconds.
WRITTEN = {"written": True}


def _milliseconds(value: object, info: ValidationInfo) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or not info.context):
        return value
    return parse_duration(value)


Milliseconds = Annotated[int, BeforeValidator(_milliseconds)]
Scale = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=NAME)]


class Model(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
