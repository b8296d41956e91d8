"""Raw columns of fields as people and tables give them: numbers, vectors, categories and lists of those.

Every function raises ``ValueError`` that names the field where a column is none of its kind.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Field

Float64 = NDArray[np.float64]


def numbers(column: Any, name: str) -> Float64:
    """Return a statistical column (n,); what is missing is NaN."""
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"field {name!r}: not a column of numbers ({error})") from error
    if values.ndim != 1:
        raise ValueError(f"field {name!r}: must be one number a row, got the shape {values.shape}")
    return values


def vectors(column: Any, field: Field) -> NDArray[np.float32]:
    """Return a dense column (n, size), a new array; what is missing is 0."""
    try:
        values = np.array(column, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"field {field.name!r}: not a matrix of numbers ({error})") from error
    if values.shape == (len(values),) and field.length == 1:
        values = values[:, None]
    if values.shape != (len(values), field.length):
        raise ValueError(f"field {field.name!r}: must have the shape (n, {field.length}), got {values.shape}")
    values[np.isnan(values)] = 0.0
    return values


def category(value: Any, name: str) -> str | None:
    """Return the text of a category, ``None`` where it is missing."""
    if isinstance(value, str):
        return value or None
    if value is None or value != value:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):  # whole numbers with gaps often come as these
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    raise ValueError(f"field {name!r}: {value!r} is no category; give texts or whole numbers")


def distinct(column: Any, name: str) -> tuple[list[str | None], NDArray[np.intp]]:
    """Return the texts of the different categories of a column, and for each row the place of its own.

    A missing category is ``None``, which may come twice.
    """
    if isinstance(column, np.ndarray):
        if column.ndim != 1:
            raise ValueError(f"field {name!r}: must be one category a row, got the shape {column.shape}")
        if column.dtype.kind in "iu":
            values, inverse = np.unique(column, return_inverse=True)
            return [str(value) for value in values.tolist()], inverse
    given = column.tolist() if isinstance(column, np.ndarray) else list(column)
    # Texts alone need no look at each; others first become texts, since 1, 1.0 and True are one key to a dictionary.
    texts = given if {str}.issuperset(map(type, given)) else [category(value, name) for value in given]
    places: dict[str | None, int] = {}
    found = [places.setdefault(text, len(places)) for text in texts]
    return [text or None for text in places], np.array(found, dtype=np.intp)


def flat(column: Any, field: Field) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the kept entries of all sequences one after the other, and how many each row has."""
    if isinstance(column, np.ndarray) and column.ndim == 2:
        if column.dtype.kind not in "iu":
            raise ValueError(f"field {field.name!r}: a matrix of sequences holds whole numbers; give lists otherwise")
        here = column >= 0
        here &= np.cumsum(here[:, ::-1], axis=1)[:, ::-1] <= field.length
        return column[here], here.sum(axis=1)
    kept = []
    for sequence in column:
        if sequence is None:
            sequence = ()
        elif isinstance(sequence, str) or not hasattr(sequence, "__len__"):
            raise ValueError(f"field {field.name!r}: {sequence!r} is no list of categories")
        entries = sequence.tolist() if isinstance(sequence, np.ndarray) else sequence
        kept.append([entry for entry in entries if category(entry, field.name) is not None][-field.length :])
    together = np.empty(sum(map(len, kept)), dtype=np.object_)
    together[:] = list(chain.from_iterable(kept))
    return together, np.array([len(entries) for entries in kept], dtype=np.intp)
