"""From the features of a request to the columns that an encoding takes, with errors that name the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.config import FLOAT32_MAX, CategoryField, HistoryField, NumberField, RecommenderField, VectorField
from engine.errors import InvalidRequest
from engine.records import Features, Numbers, Texts, Value

Columns = dict[str, Any]
_KINDS = {"number": "a number", "text": "a text", "numbers": "a list of numbers", "texts": "a list of texts"}
_WANTED = {"number": "number", "category": "text", "history": "texts", "vector": "numbers"}
#: Entries of a history that a request may carry; the model sees the latest alone.
_MAX_HISTORY = 10_000


def user_columns(fields: Mapping[str, RecommenderField], user: Features, *, reject_unknown: bool) -> Columns:
    """Return the columns, of one row, of a request's user; raises ``InvalidRequest``."""
    if user.packed:
        raise InvalidRequest("user.packed", "is not read by recommenders; send the features by name")
    return read_columns(fields, [user.named], lambda _row: "user", reject_unknown=reject_unknown)


def read_columns(
    fields: Mapping[str, RecommenderField],
    rows: Sequence[Mapping[str, Value]],
    path: Callable[[int], str],
    *,
    reject_unknown: bool,
) -> Columns:
    """Return one column for each field, with what is missing as encodings take it.

    Parameters
    ----------
    fields
        Of one side.
    rows
        The features of each row, by name.
    path
        Where a row stands in the request, for errors.
    reject_unknown
        Whether a feature that is not declared is an error.

    Raises
    ------
    InvalidRequest
        A feature is not declared, of another type, or of another size.
    """
    columns: Columns = {name: empty_column(field, len(rows)) for name, field in fields.items()}
    for row, features in enumerate(rows):
        for name, value in features.items():
            field = fields.get(name)
            if field is None:
                if reject_unknown:
                    known = ", ".join(fields) or "none"
                    raise InvalidRequest(
                        f"{path(row)}.{name}",
                        f"no such field (known: {known}); declare it, or set unknown_features: ignore",
                    )
                continue
            columns[name][row] = _read(field, value, lambda name=name, row=row: f"{path(row)}.{name}")  # type: ignore[misc]
    return columns


def empty_column(field: RecommenderField, count: int) -> Any:
    """Return a column in which every value is missing."""
    match field:
        case NumberField():
            return np.full(count, np.nan)
        case VectorField():
            return np.zeros((count, field.size), np.float32)
        case CategoryField():
            return [None] * count
        case _:
            return [()] * count


def value_of(field: RecommenderField, cell: Any) -> Value | None:
    """Return the message form of a cell of a column; ``None`` where it is missing."""
    match field:
        case NumberField():
            return None if np.isnan(cell) else Value(number=float(cell))
        case CategoryField():
            return Value(text=cell) if cell else None
        case VectorField():
            return Value(numbers=Numbers(values=cell.tolist()))
        case _:
            return Value(texts=Texts(values=cell)) if len(cell) else None


def _read(field: RecommenderField, value: Value, path: Callable[[], str]) -> Any:
    kind = value.WhichOneof("kind")
    wanted = _WANTED[field.type]
    if kind != wanted:
        raise InvalidRequest(path(), f"must be {_KINDS[wanted]}, got {_KINDS.get(kind or '', 'nothing')}")
    if isinstance(field, CategoryField):
        return value.text
    if isinstance(field, NumberField):
        number = value.number
        if not abs(number) <= FLOAT32_MAX:  # NaN fails the comparison too
            raise InvalidRequest(path(), f"is {number}; send a finite number within float32, or leave it out")
        return number
    if isinstance(field, HistoryField):
        if len(value.texts.values) > _MAX_HISTORY:
            raise InvalidRequest(path(), f"has {len(value.texts.values)} entries, more than {_MAX_HISTORY}; send the latest")
        return tuple(value.texts.values)
    numbers = np.array(value.numbers.values)
    if numbers.shape != (field.size,):
        raise InvalidRequest(path(), f"must have {field.size} numbers, got {len(numbers)}")
    if not (np.abs(numbers) <= FLOAT32_MAX).all():
        raise InvalidRequest(path(), "holds a number that is not finite within float32; send finite ones")
    return numbers
