"""The encoding of fields: quantile buckets that are frozen once fitted, and vocabularies that only ever grow."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import FIRST, MISSING, SIDES, UNSEEN, Field, Int32, Rows, Side
from engine.recommender.values import Float64, distinct, flat, numbers, vectors

Columns = Mapping[str, NDArray[Any]]

_DECLARATION = "fields"
_EDGES = "edges."
_VOCABULARY = "vocabulary."


class BothSides(Protocol):
    """Raw columns of some rows of both sides, such as ``training.sessions.Sessions``."""

    @property
    def user(self) -> Columns:
        """The user columns."""

    @property
    def item(self) -> Columns:
        """The item columns."""


class FieldSpace:
    """The fields of both sides and how their values become indices; it never changes.

    The model of a day must find its embeddings in the next day's space again. So the edges of buckets are frozen when
    they have been fitted, and an extended vocabulary has its old entries at their old codes.

    Parameters
    ----------
    user, item
        The fields; names are unique over both sides.
    edges : mapping of ndarray of float64
        By statistical field, rising: bucket b holds the values v with ``edges[b - 1] < v <= edges[b]``.
    vocabularies
        By name, the texts of the codes 2, 3, ...

    Raises
    ------
    ValueError
        A name is declared twice; edges or a vocabulary belong to no field, or are not as said.

    Examples
    --------
    >>> space = FieldSpace(
    ...     user=(Field("recent", "sequential", length=3, vocabulary="id"),),
    ...     item=(Field("id", "categorical"), Field("price", "statistical", buckets=3)),
    ...     edges={"price": np.array([1.0, 2.0])},
    ...     vocabularies={"id": ("a", "b")},
    ... )
    >>> rows = space.encode("item", {"id": ["b", "", "z"], "price": [2.0, 2.5, float("nan")]})
    >>> rows.categorical.ravel().tolist(), rows.statistical.ravel().tolist()
    ([3, 0, 1], [1, 2, 3])
    >>> space.encode("user", {"recent": [["q", "a", "b", "b"], []]}).sequential.tolist()
    [[[2, 3, 3]], [[0, 0, 0]]]
    """

    def __init__(
        self,
        user: Sequence[Field],
        item: Sequence[Field],
        edges: Mapping[str, Float64] | None = None,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.user = tuple(user)
        self.item = tuple(item)
        self._by_name = {field.name: field for field in (*self.user, *self.item)}
        if len(self._by_name) < len(self.user) + len(self.item):
            names = Counter(field.name for field in (*self.user, *self.item))
            raise ValueError(
                f"fields: {names.most_common(1)[0][0]!r} is declared twice; names are unique over both sides"
            )
        known = {field.codes for field in self._by_name.values() if field.coded}
        given = {name: tuple(texts) for name, texts in (vocabularies or {}).items()}
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"vocabularies: {unknown[0]!r} belongs to no field; there are: {', '.join(sorted(known))}")
        self.vocabularies: Mapping[str, tuple[str, ...]] = MappingProxyType(
            {name: given.get(name, ()) for name in sorted(known)}
        )
        self._codes = {
            name: {text: code for code, text in enumerate(texts, start=FIRST)}
            for name, texts in self.vocabularies.items()
        }
        for name, codes in self._codes.items():
            if len(codes) < len(self.vocabularies[name]):
                raise ValueError(f"vocabularies: {name!r} holds a text twice")
        self.edges: Mapping[str, Float64] = MappingProxyType(
            {name: _frozen(self._by_name.get(name), name, values) for name, values in sorted((edges or {}).items())}
        )

    def fields(self, side: Side) -> tuple[Field, ...]:
        """Return the fields of a side."""
        return self.user if side == "user" else self.item

    def rows_of(self, field: Field) -> int:
        """Return the number of embedding rows that a field needs: one for each index it may have; 0 if it is dense."""
        if field.coded:
            return FIRST + len(self.vocabularies[field.codes])
        return field.buckets + 1 if field.kind == "statistical" else 0

    def filled(self, field: Field) -> int:
        """Return the number of buckets of a statistical field that values may fall into.

        It is less than ``field.buckets`` where many values were equal, so that several quantiles are one edge.
        """
        return len(self._edges(field)) + 1

    def encode(self, side: Side, columns: Mapping[str, Any]) -> Rows:
        """Return the rows of some columns of one side.

        Parameters
        ----------
        side
            Which fields.
        columns
            By field, n rows each; other columns are passed over. Statistical: numbers, NaN is missing. Categorical:
            texts, whole numbers, or ``None``, NaN and ``""`` for missing. Sequential: lists of categories, of which
            missing ones are left out, or a matrix of whole numbers, where a negative one is padding. Dense: (n, size),
            where NaN becomes 0. A whole number and its decimal text are one category.

        Raises
        ------
        ValueError
            A field has no column, its column has another number of rows or another shape, or the field's buckets
            were not fitted.
        """
        fields = self.fields(side)
        for field in fields:
            if field.name not in columns:
                raise ValueError(
                    f"{side} field {field.name!r} has no column; there are: {', '.join(columns) or 'none'}"
                )
        n = len(columns[fields[0].name] if fields else next(iter(columns.values()), ()))
        for field in fields:
            if len(columns[field.name]) != n:
                raise ValueError(
                    f"{side} field {field.name!r}: {len(columns[field.name])} rows, but {fields[0].name!r} has {n}"
                )
        of_kind = {kind: [f for f in fields if f.kind == kind] for kind in ("statistical", "categorical", "sequential")}
        statistical = np.empty((n, len(of_kind["statistical"])), dtype=np.int32)
        for place, field in enumerate(of_kind["statistical"]):
            statistical[:, place] = self._buckets(field, columns[field.name])
        categorical = np.empty((n, len(of_kind["categorical"])), dtype=np.int32)
        for place, field in enumerate(of_kind["categorical"]):
            categorical[:, place] = _coded(columns[field.name], self._codes[field.codes], field)
        longest = max((field.length for field in of_kind["sequential"]), default=0)
        sequential = np.zeros((n, len(of_kind["sequential"]), longest), dtype=np.int32)
        for place, field in enumerate(of_kind["sequential"]):
            self._sequences(field, columns[field.name], sequential[:, place])
        dense = [vectors(columns[field.name], field) for field in fields if field.kind == "dense"]
        joined = np.concatenate(dense, axis=1) if dense else np.zeros((n, 0), dtype=np.float32)
        return Rows(statistical, categorical, sequential, joined)

    def fitted(self, sessions: Iterable[BothSides], *, min_count: int = 2) -> FieldSpace:
        """Return the space with edges and vocabularies of these rows, to be fitted on the first days alone.

        Edges are quantiles: each bucket holds nearly the same number of these rows, as far as equal values allow.
        All statistical values are held meanwhile, everything else as counts.

        Parameters
        ----------
        sessions
            The rows.
        min_count
            A category that comes less often than this stays "unseen". With 2 or more that code meets categories in
            training as rare as those it will stand for; with 1 it would never be trained.
        """
        values: dict[str, list[Float64]] = {f.name: [] for f in self._by_name.values() if f.kind == "statistical"}
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.vocabularies}
        for chunk in sessions:
            self._count(chunk, counts)
            for side in SIDES:
                for field in self.fields(side):
                    if field.kind == "statistical":
                        values[field.name].append(numbers(_columns(chunk, side)[field.name], field.name))
        edges = {name: _quantiles(parts, self._by_name[name].buckets) for name, parts in values.items()}
        return FieldSpace(self.user, self.item, edges, self._grown({}, counts, min_count))

    def extended(self, sessions: Iterable[BothSides], *, min_count: int = 2) -> FieldSpace:
        """Return the space with the new categories of these rows appended; all that was encoded keeps its indices.

        Parameters
        ----------
        sessions
            The rows, such as those of a day.
        min_count
            A new category must come so often in them; see ``fitted``.
        """
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.vocabularies}
        for chunk in sessions:
            self._count(chunk, counts)
        return FieldSpace(self.user, self.item, self.edges, self._grown(self.vocabularies, counts, min_count))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return it as plain arrays, for a NumPy archive that is read without pickle."""
        declaration = {side: [asdict(field) for field in self.fields(side)] for side in SIDES}
        return {
            _DECLARATION: _packed(declaration),
            **{_EDGES + name: edges for name, edges in self.edges.items()},
            **{_VOCABULARY + name: _packed(texts) for name, texts in self.vocabularies.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FieldSpace:
        """Build it again, passing over other arrays; raises ``ValueError`` or ``KeyError`` where it is damaged."""
        declaration = _unpacked(arrays[_DECLARATION])
        try:
            user, item = ([Field(**field) for field in declaration[side]] for side in SIDES)
        except TypeError as error:
            raise ValueError(f"fields: {error}; read it with the Leeway that wrote it") from error
        return cls(
            user,
            item,
            {key.removeprefix(_EDGES): arrays[key] for key in arrays if key.startswith(_EDGES)},
            {key.removeprefix(_VOCABULARY): _unpacked(arrays[key]) for key in arrays if key.startswith(_VOCABULARY)},
        )

    def digest(self) -> str:
        """Return a SHA-256 that two spaces share if, and only if, they encode alike."""
        digest = hashlib.sha256()
        for name, array in sorted(self.to_arrays().items()):
            digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _edges(self, field: Field) -> Float64:
        if field.name not in self.edges:
            raise ValueError(f"field {field.name!r}: its buckets are not fitted; call fitted() with the first days")
        return self.edges[field.name]

    def _buckets(self, field: Field, column: Any) -> Int32:
        values = numbers(column, field.name)
        found = np.searchsorted(self._edges(field), values, side="left").astype(np.int32)
        found[np.isnan(values)] = field.buckets
        return found

    def _sequences(self, field: Field, column: Any, out: Int32) -> None:
        """Write the codes of sequences into ``out`` (n, L), which is zero."""
        entries, lengths = flat(column, field)
        codes = _coded(entries, self._codes[field.codes], field)
        row = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        out[row, place] = codes

    def _count(self, chunk: BothSides, counts: Mapping[str, Counter[str]]) -> None:
        for side in SIDES:
            for field in self.fields(side):
                if field.coded:
                    column: Any = _columns(chunk, side)[field.name]
                    entries = column if field.kind == "categorical" else flat(column, field)[0]
                    texts, inverse = distinct(entries, field.name)
                    times = np.bincount(inverse, minlength=len(texts)).tolist()
                    counter = counts[field.codes]
                    for text, count in zip(texts, times, strict=True):
                        if text is not None:
                            counter[text] += count

    @staticmethod
    def _grown(
        old: Mapping[str, tuple[str, ...]], counts: Mapping[str, Counter[str]], min_count: int
    ) -> dict[str, tuple[str, ...]]:
        """Return vocabularies with what is new in a fixed order: the most frequent first, then by text."""
        grown = {}
        for name, counter in counts.items():
            known = set(old.get(name, ()))
            new = [(-count, text) for text, count in counter.items() if count >= min_count and text not in known]
            grown[name] = (*old.get(name, ()), *(text for _, text in sorted(new)))
        return grown


def _columns(chunk: BothSides, side: Side) -> Columns:
    return chunk.user if side == "user" else chunk.item


def _frozen(field: Field | None, name: str, values: Float64) -> Float64:
    """Return the edges of a field, read-only."""
    edges = np.array(values, dtype=np.float64)
    if field is None or field.kind != "statistical":
        raise ValueError(f"edges: {name!r} is no statistical field")
    if edges.ndim != 1 or len(edges) >= field.buckets or not (edges[1:] > edges[:-1]).all() or np.isnan(edges).any():
        raise ValueError(f"edges: those of {name!r} must rise, and be fewer than its {field.buckets} buckets")
    edges.flags.writeable = False
    return edges


def _quantiles(parts: Sequence[Float64], buckets: int) -> Float64:
    values = np.concatenate(parts) if parts else np.zeros(0)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return values
    # Values that came, and no means between two of them: an edge is then the last value of its own bucket.
    return np.unique(np.quantile(values, np.arange(1, buckets) / buckets, method="inverted_cdf"))


def _coded(column: Any, codes: Mapping[str, int], field: Field) -> Int32:
    texts, inverse = distinct(column, field.name)
    found = [MISSING if text is None else codes.get(text, UNSEEN) for text in texts]
    return np.array(found, dtype=np.int32)[inverse] if found else np.zeros(0, dtype=np.int32)


def _packed(value: Any) -> NDArray[np.uint8]:
    """Return JSON as bytes: an array of texts would pad each to the longest and lose zero bytes at the end."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _unpacked(array: NDArray[Any]) -> Any:
    return json.loads(np.asarray(array, dtype=np.uint8).tobytes())
