"""From the features of a request to the float32 matrix that an oracle scores.

A row is one (context, action) pair: the columns of the context, then those of the action. Numbers take one
column, vectors ``size`` columns, texts ``buckets`` indicator columns, one of which is 1 by a hash of the value,
so that a value never seen before needs no new column. Nothing is fitted: the encoding is a pure function of
the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import FLOAT32_MAX, DecisionPoint, Feature, NumberFeature, TextFeature, VectorFeature
from engine.errors import InvalidRequest
from engine.hashing import text_bucket
from engine.records import Action, Features, Value

Float32 = NDArray[np.float32]
_KINDS = {"number": "a number", "text": "a text", "numbers": "a list of numbers", None: "nothing"}


@dataclass(frozen=True, slots=True)
class Column:
    """Where one feature lies in its block: columns ``start`` to ``stop``."""

    feature: Feature
    start: int
    stop: int


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
                    self.names.append(name)
                    scale.append(feature.scale)
                case VectorFeature():
                    self.names += [f"{name}_{i}" for i in range(feature.size)]
                    scale += [feature.scale] * feature.size
                case TextFeature():
                    self.names += [f"{name}_bucket_{i}" for i in range(feature.buckets)]
                    scale += [1.0] * feature.buckets
            if not isinstance(feature, TextFeature):
                numeric += range(start, len(self.names))
            self.columns[name] = Column(feature, start, len(self.names))
        self.width = len(self.names)
        self.numeric = np.array(numeric, dtype=np.intp)
        self.scale = np.array(scale, dtype=np.float32)

    def feature_of(self, column: int) -> str:
        """Return the name of the feature that a column belongs to."""
        return next(name for name, place in self.columns.items() if place.start <= column < place.stop)

    def fill(self, out: Float32, named: Mapping[str, Value], path: str, *, packed: bool) -> None:
        """Write raw (unscaled) named values into a zeroed row; ``packed``: numeric ones came otherwise."""
        for name, value in named.items():
            column = self.columns.get(name)
            if column is None:
                if self._reject_unknown:
                    known = ", ".join(self.columns) or "none"
                    raise InvalidRequest(
                        f"{path}.{name}",
                        f"no such feature in the schema (known: {known}); declare it, or set unknown_features: ignore",
                    )
                continue
            kind = value.WhichOneof("kind")
            feature = column.feature
            if isinstance(feature, TextFeature):
                if kind != "text":
                    raise InvalidRequest(f"{path}.{name}", f"must be a text, got {_KINDS[kind]}")
                out[column.start + text_bucket(name, value.text, feature.buckets)] = 1.0
            elif packed:
                raise InvalidRequest(f"{path}.{name}", "is numeric and came packed too; send one of the two forms")
            elif isinstance(feature, NumberFeature):
                if kind != "number":
                    raise InvalidRequest(f"{path}.{name}", f"must be a number, got {_KINDS[kind]}")
                out[column.start] = _float32(value.number, f"{path}.{name}")
            else:
                if kind != "numbers":
                    raise InvalidRequest(f"{path}.{name}", f"must be a list of numbers, got {_KINDS[kind]}")
                numbers = value.numbers.values
                if len(numbers) != feature.size:
                    raise InvalidRequest(f"{path}.{name}", f"must have {feature.size} numbers, got {len(numbers)}")
                for i, number in enumerate(numbers):
                    out[column.start + i] = _float32(number, f"{path}.{name}[{i}]")

    def unpack(self, data: bytes, rows: int, path: str) -> Float32:
        """Return the packed numbers as a (rows, numeric width) matrix."""
        width = len(self.numeric)
        if len(data) != 4 * rows * width:
            raise InvalidRequest(
                path,
                f"must be {rows} x {width} little-endian float32 ({4 * rows * width} bytes), got {len(data)} bytes",
            )
        matrix = np.frombuffer(data, dtype="<f4").reshape(rows, width)
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            name = self.names[self.numeric[column]]
            raise InvalidRequest(path, f"feature {name!r} of row {row} is {matrix[row, column]}; send finite numbers")
        return matrix


def _float32(number: float, path: str) -> float:
    # NaN fails the comparison too.
    if not abs(number) <= FLOAT32_MAX:
        raise InvalidRequest(path, f"is {number}; send a finite number within the range of float32, or leave it out")
    return number


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
        if width or context.named or context.packed:
            row = X[0, :width]
            self.context.fill(row, context.named, "context.features", packed=bool(context.packed))
            if context.packed:
                row[self.context.numeric] = self.context.unpack(context.packed, 1, "context.packed")[0]
            X[1:, :width] = row
        codes = np.zeros(count, dtype=np.int64)
        available = np.ones(count, dtype=np.bool_)
        seen: set[str] = set()
        for i, action in enumerate(actions):
            identity = action.id
            if not identity:
                raise InvalidRequest(f"actions[{i}].id", "is empty; give every action an id")
            if identity in seen:
                raise InvalidRequest(f"actions[{i}].id", f"{identity!r} stands twice; ids must differ within a request")
            seen.add(identity)
            codes[i] = self.codes.get(identity, 0)
            if action.excluded:
                available[i] = False
            if action.features:
                self.action.fill(X[i, width:], action.features, f"actions[{i}].features", packed=bool(packed_actions))
        if not available.any():
            raise InvalidRequest("actions", "are all excluded; leave at least one to draw from")
        if packed_actions:
            X[:, width + self.action.numeric] = self.action.unpack(packed_actions, count, "packed_actions")
        with np.errstate(over="ignore"):
            X *= self.scale
        if not np.isfinite(X).all():
            i, column = (int(index) for index in np.argwhere(~np.isfinite(X))[0])
            block, path = (self.context, "context") if column < width else (self.action, f"actions[{i}]")
            name = block.feature_of(column if column < width else column - width)
            raise InvalidRequest(
                f"{path}.features.{name}", "times its scale is beyond float32; correct the value or the scale"
            )
        return Encoded(X, codes, available)
