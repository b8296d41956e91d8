"""From the features of a request to the float32 matrix that an oracle scores.

A row is one (context, action) pair: the columns of the context, then those of the action. Numbers take one
column, vectors ``size`` columns, texts ``buckets`` indicator columns, one of which is 1 by a hash of the value,
so that a value never seen before needs no new column. Nothing is fitted: the encoding is a pure function of
the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.config import FLOAT32_MAX, DecisionPoint, Feature, NumberFeature, TextFeature, VectorFeature
from engine.errors import InvalidRequest
from engine.hashing import text_bucket
from engine.records import Action, Features, Value

Float32 = NDArray[np.float32]
_KINDS = {
    "number": "a number",
    "text": "a text",
    "numbers": "a list of numbers",
    "texts": "a list of texts",
    None: "nothing",
}


@dataclass(frozen=True, slots=True)
class Column:
    """Where one feature lies in its block, columns ``start`` to ``stop``, and the kind of its value in a message."""

    feature: Feature
    start: int
    stop: int
    kind: str


class FeatureBlock:
    """The columns of one group of features (of the context, or of an action).

    Parameters
    ----------
    features
        The schema, in the order of its columns.
    reject_unknown
        Whether a feature that the schema does not name is an error.

    Attributes
    ----------
    width : int
        Number of columns.
    numeric : ndarray of int, shape (numeric width,)
        The columns that the packed form carries, in its order.
    names : list of str
        A name for each column.
    """

    def __init__(self, features: Mapping[str, Feature], *, reject_unknown: bool) -> None:
        self.columns: dict[str, Column] = {}
        self.names: list[str] = []
        self._reject_unknown = reject_unknown
        numeric: list[int] = []
        scale: list[float] = []
        for name, feature in features.items():
            start = len(self.names)
            match feature:
                case NumberFeature():
                    kind = "number"
                    self.names.append(name)
                    scale.append(feature.scale)
                case VectorFeature():
                    kind = "numbers"
                    self.names += [f"{name}_{i}" for i in range(feature.size)]
                    scale += [feature.scale] * feature.size
                case TextFeature():
                    kind = "text"
                    self.names += [f"{name}_bucket_{i}" for i in range(feature.buckets)]
                    scale += [1.0] * feature.buckets
            if not isinstance(feature, TextFeature):
                numeric += range(start, len(self.names))
            self.columns[name] = Column(feature, start, len(self.names), kind)
        self.width = len(self.names)
        self.numeric = np.array(numeric, dtype=np.intp)
        #: The same to assign to: a slice, which is quicker, where they stand in a row.
        self.packed_columns: slice | NDArray[np.intp] = (
            slice(numeric[0], numeric[-1] + 1)
            if numeric and numeric == list(range(numeric[0], numeric[-1] + 1))
            else self.numeric
        )
        self.scale = np.array(scale, dtype=np.float32)

    def feature_of(self, column: int) -> str:
        """Return the name of the feature that a column belongs to."""
        return next(name for name, place in self.columns.items() if place.start <= column < place.stop)

    def row(self, named: Mapping[str, Value], path: str, *, packed: bool) -> list[float]:
        """Return raw (unscaled) named values as a row; ``packed``: numeric ones came otherwise, and are 0 here."""
        row = [0.0] * self.width
        columns = self.columns
        for name, value in named.items():
            column = columns.get(name)
            if column is None:
                if self._reject_unknown:
                    known = ", ".join(columns) or "none"
                    raise InvalidRequest(
                        f"{path}.{name}",
                        f"no such feature in the schema (known: {known}); declare it, or set unknown_features: ignore",
                    )
                continue
            kind = value.WhichOneof("kind")
            if kind != column.kind:
                raise InvalidRequest(f"{path}.{name}", f"must be {_KINDS[column.kind]}, got {_KINDS[kind]}")
            if kind == "text":
                row[column.start + text_bucket(name, value.text, column.stop - column.start)] = 1.0
            elif packed:
                raise InvalidRequest(f"{path}.{name}", "is numeric and came packed too; send one of the two forms")
            elif kind == "number":
                number = value.number
                # NaN fails the comparison too.
                row[column.start] = (
                    number if -FLOAT32_MAX <= number <= FLOAT32_MAX else _refused(number, f"{path}.{name}")
                )
            else:
                numbers = value.numbers.values
                size = column.stop - column.start
                if len(numbers) != size:
                    raise InvalidRequest(f"{path}.{name}", f"must have {size} numbers, got {len(numbers)}")
                row[column.start : column.stop] = [
                    number if -FLOAT32_MAX <= number <= FLOAT32_MAX else _refused(number, f"{path}.{name}[{i}]")
                    for i, number in enumerate(numbers)
                ]
        return row

    def unpack(self, data: bytes, rows: int, path: str) -> Float32:
        """Return the packed numbers as a (rows, numeric width) matrix."""
        width = len(self.numeric)
        if len(data) != 4 * rows * width:
            raise InvalidRequest(
                path,
                f"must be {rows} x {width} little-endian float32 ({4 * rows * width} bytes), got {len(data)} bytes",
            )
        return np.frombuffer(data, dtype="<f4").reshape(rows, width)

    def check_packed(self, matrix: Float32, path: str) -> None:
        """Raise ``InvalidRequest`` where a packed number is not finite."""
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            name = self.names[self.numeric[column]]
            raise InvalidRequest(path, f"feature {name!r} of row {row} is {matrix[row, column]}; send finite numbers")


def _refused(number: float, path: str) -> NoReturn:
    raise InvalidRequest(path, f"is {number}; send a finite number within the range of float32, or leave it out")


@compiled("int64(float32[:, ::1], float32[::1])")
def _scale(X: Float32, scale: Float32) -> int:
    """Multiply each column by its scale; return the flat index of the first number that is not finite then, or -1."""
    found = -1
    rows, width = X.shape
    for row in range(rows):
        for column in range(width):
            X[row, column] *= scale[column]
            if found < 0 and not np.isfinite(X[row, column]):
                found = row * width + column
    return found


def same_columns(one: DecisionPoint, other: DecisionPoint) -> bool:
    """Say whether two decision points encode requests into the same columns, in the same order.

    What was learned under one says nothing under another. Compared as text: dictionaries with the same features in
    another order are equal, and their columns are not.
    """
    return _columns(one) == _columns(other)


def _columns(point: DecisionPoint) -> str:
    return point.model_dump_json(include={"context": True, "actions": {"features"}})


@dataclass(frozen=True, slots=True)
class Encoded:
    """One request, ready to be scored.

    Attributes
    ----------
    X : ndarray of float32, shape (n_actions, width)
        One row for each action.
    codes : ndarray of int64, shape (n_actions,)
        Index of the action in the policy's vocabulary; 0: not in it.
    available : ndarray of bool, shape (n_actions,)
        False where the action is excluded.
    """

    X: Float32
    codes: NDArray[np.int64]
    available: NDArray[np.bool_]


class Encoder:
    """The encoding of one decision point's requests, with the action vocabulary of one policy.

    Parameters
    ----------
    point
        The decision point.
    vocabulary
        Ids of the actions that have a code of their own, 1, 2, ...; any other action has code 0.
    """

    def __init__(self, point: DecisionPoint, vocabulary: Sequence[str] = ()) -> None:
        reject = point.unknown_features == "reject"
        self.context = FeatureBlock(point.context, reject_unknown=reject)
        self.action = FeatureBlock(point.actions.features, reject_unknown=reject)
        self.vocabulary = tuple(vocabulary)
        self.codes = {action: code for code, action in enumerate(self.vocabulary, start=1)}
        self.width = self.context.width + self.action.width
        self.scale = np.concatenate([self.context.scale, self.action.scale])
        self._max_actions = point.actions.max

    @property
    def names(self) -> list[str]:
        """A name for each column: ``context_...`` and ``action_...``."""
        return [f"context_{n}" for n in self.context.names] + [f"action_{n}" for n in self.action.names]

    def takes(self, count: int) -> bool:
        """Say whether a request may offer so many actions."""
        return 0 < count <= self._max_actions

    def encode(self, context: Features, actions: Sequence[Action], packed_actions: bytes = b"") -> Encoded:
        """Check a request against the schema and encode it; raises ``InvalidRequest`` naming the field."""
        count = len(actions)
        if count == 0:
            raise InvalidRequest("actions", "is empty; send at least one candidate")
        if count > self._max_actions:
            raise InvalidRequest(
                "actions", f"has {count} candidates, more than the {self._max_actions} allowed (actions.max)"
            )
        X = np.zeros((count, self.width), dtype=np.float32)
        width = self.context.width
        packed_context = packed_matrix = None
        if context.named:
            X[:, :width] = self.context.row(context.named, "context.features", packed=bool(context.packed))
        if context.packed:
            packed_context = self.context.unpack(context.packed, 1, "context.packed")
            X[:, :width][:, self.context.packed_columns] = packed_context
        identities = [action.id for action in actions]
        if "" in identities or len(set(identities)) < count:
            _refuse(identities)
        available = np.ones(count, dtype=np.bool_)
        for i, action in enumerate(actions):
            if action.excluded:
                available[i] = False
            if action.features:
                X[i, width:] = self.action.row(action.features, f"actions[{i}].features", packed=bool(packed_actions))
        if not available.any():
            raise InvalidRequest("actions", "are all excluded; leave at least one to draw from")
        if packed_actions:
            packed_matrix = self.action.unpack(packed_actions, count, "packed_actions")
            X[:, width:][:, self.action.packed_columns] = packed_matrix
        place = _scale(X, self.scale)
        if place >= 0:
            if packed_context is not None:
                self.context.check_packed(packed_context, "context.packed")
            if packed_matrix is not None:
                self.action.check_packed(packed_matrix, "packed_actions")
            i, column = divmod(place, self.width)
            block, path = (self.context, "context") if column < width else (self.action, f"actions[{i}]")
            name = block.feature_of(column if column < width else column - width)
            raise InvalidRequest(
                f"{path}.features.{name}", "times its scale is beyond float32; correct the value or the scale"
            )
        get = self.codes.get
        codes = np.array([get(identity, 0) for identity in identities], dtype=np.int64)
        return Encoded(X, codes, available)


def _refuse(identities: Sequence[str]) -> NoReturn:
    """Say which id is empty, or stands twice."""
    seen: set[str] = set()
    for i, identity in enumerate(identities):
        if not identity:
            raise InvalidRequest(f"actions[{i}].id", "is empty; give every action an id")
        if identity in seen:
            break
        seen.add(identity)
    raise InvalidRequest(f"actions[{i}].id", f"{identity!r} stands twice; ids must differ within a request")
