"""The catalogue: the items that may be recommended without being named in a request, with their features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import ITEM_ID, CategoryField, HistoryField, NumberField, RecommenderField, VectorField
from engine.recommender.columns import value_of
from engine.records import MAX_ID_LENGTH, Action, Decision


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items and the raw columns of their fields; immutable.

    Parameters
    ----------
    fields
        The item fields of the recommender.
    ids
        Of the items; different.
    columns
        By field: float64 (n,) with NaN for missing, texts or ``None``, tuples of texts, or float32 (n, size).

    Raises
    ------
    ValueError
        There is no item, an id is empty, too long or stands twice, or a column is missing or of another length.
    """

    fields: Mapping[str, RecommenderField]
    ids: tuple[str, ...]
    columns: Mapping[str, Any]
    rows: Mapping[str, int] = field(init=False, repr=False)
    digest: str = field(init=False)
    _actions: list[bytes | None] = field(init=False, repr=False)
    _named: list[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("the catalogue has no item; give at least one")
        rows = {identity: row for row, identity in enumerate(self.ids)}
        if len(rows) < len(self.ids):
            twice = next(identity for row, identity in enumerate(self.ids) if rows[identity] != row)
            raise ValueError(f"item {twice!r} stands twice; ids must differ")
        if "" in rows or max(map(len, self.ids)) > MAX_ID_LENGTH:
            raise ValueError(f"an item's id is empty or longer than {MAX_ID_LENGTH} characters; give each a short one")
        for name in self.fields:
            if name not in self.columns or len(self.columns[name]) != len(self.ids):
                raise ValueError(f"column {name!r} is missing or has not one value for each of {len(self.ids)} items")
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "_actions", [None] * len(self.ids))
        # Each as the field `actions` of a decision: thousands of them are put into a record in one piece.
        named = [Decision(actions=[Action(id=identity)]).SerializeToString() for identity in self.ids]
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "digest", _digest(self.to_arrays()))

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ids)

    def named(self, rows: Sequence[int]) -> bytes:
        """Return some items as the serialised field ``actions`` of a decision: ids alone."""
        return b"".join([self._named[row] for row in rows])

    def action(self, row: int) -> Action:
        """Return an item with its features."""
        known = self._actions[row]
        if known is None:
            features = {
                name: value
                for name, declared in self.fields.items()
                if name != ITEM_ID and (value := value_of(declared, self.columns[name][row])) is not None
            }
            known = self._actions[row] = Action(id=self.ids[row], features=features).SerializeToString()
        return Action.FromString(known)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return it as plain arrays, for a NumPy archive that is read without pickle."""
        arrays: dict[str, NDArray[Any]] = {"ids": _packed(self.ids)}
        for name, declared in self.fields.items():
            column = self.columns[name]
            of_texts = isinstance(declared, CategoryField | HistoryField)
            arrays[f"column.{name}"] = _packed(list(column)) if of_texts else np.asarray(column)
        return arrays

    @classmethod
    def from_arrays(cls, fields: Mapping[str, RecommenderField], arrays: Mapping[str, NDArray[Any]]) -> Catalogue:
        """Build it again; raises ``ValueError`` or ``KeyError`` where it is damaged or of other fields."""
        columns: dict[str, Any] = {}
        for name, declared in fields.items():
            array = arrays[f"column.{name}"]
            match declared:
                case CategoryField():
                    columns[name] = json.loads(array.tobytes())
                case HistoryField():
                    columns[name] = [tuple(entries) for entries in json.loads(array.tobytes())]
                case NumberField():
                    columns[name] = np.asarray(array, np.float64)
                case VectorField():
                    columns[name] = np.asarray(array, np.float32).reshape(-1, declared.size)
        return cls(fields, tuple(json.loads(arrays["ids"].tobytes())), columns)


def _packed(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    hasher = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        hasher.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()
