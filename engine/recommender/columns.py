"""From the features of a request to the columns that an encoding takes, with errors that name the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    columns: Columns = {}
    found = 0
    for name, field in fields.items():
        given = [(row, value) for row, features in enumerate(rows) if (value := features.get(name)) is not None]
        found += len(given)
        wanted = _WANTED[field.type]
        for row, value in given:
            kind = value.WhichOneof("kind")
            if kind != wanted:
                problem = f"must be {_KINDS[wanted]}, got {_KINDS.get(kind or '', 'nothing')}"
                raise InvalidRequest(f"{path(row)}.{name}", problem)
        column = columns[name] = empty_column(field, len(rows))
        try:
            _fill(column, field, given)
        except _BadCellError as error:
            raise InvalidRequest(f"{path(error.row)}.{name}", str(error)) from None
    if reject_unknown and found < sum(map(len, rows)):
        row, name = next((row, name) for row, features in enumerate(rows) for name in features if name not in fields)
        known = ", ".join(fields) or "none"
        raise InvalidRequest(
            f"{path(row)}.{name}", f"no such field (known: {known}); declare it, or set unknown_features: ignore"
        )
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


class _BadCellError(Exception):
    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


def _fill(column: Any, field: RecommenderField, given: Sequence[tuple[int, Value]]) -> None:
    """Write values of the right kind into a column; raises ``_BadCellError``."""
    if not given:
        return
    rows = [row for row, _ in given]
    match field:
        case CategoryField():
            for row, value in given:
                column[row] = value.text
        case HistoryField():
            for row, value in given:
                entries = value.texts.values
                if len(entries) > _MAX_HISTORY:
                    problem = f"has {len(entries)} entries, more than {_MAX_HISTORY}; send the latest"
                    raise _BadCellError(row, problem)
                column[row] = tuple(entries)
        case NumberField():
            numbers = np.array([value.number for _, value in given])
            _check_finite(numbers[:, None], rows)
            column[rows] = numbers
        case _:
            vectors = [value.numbers.values for _, value in given]
            for row, vector in zip(rows, vectors, strict=True):
                if len(vector) != field.size:
                    raise _BadCellError(row, f"must have {field.size} numbers, got {len(vector)}")
            matrix = np.fromiter(chain.from_iterable(vectors), np.float64, len(rows) * field.size)
            matrix = matrix.reshape(len(rows), field.size)
            _check_finite(matrix, rows)
            column[rows] = matrix


def _check_finite(matrix: NDArray[np.float64], rows: Sequence[int]) -> None:
    bad = np.argwhere(~(np.abs(matrix) <= FLOAT32_MAX))  # NaN fails the comparison too
    if len(bad):
        place, column = bad[0]
        problem = f"is {matrix[place, column]}; send finite numbers within float32, or leave the field out"
        raise _BadCellError(rows[place], problem)
