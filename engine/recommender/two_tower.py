"""The two-tower model that scores items for a user: NumPy alone, and nothing drawn.

Source: P.-S. Huang et al., "Learning deep structured semantic models for web search using clickthrough data", CIKM
2013 (the two towers); Y. Zhu et al., "A Probabilistic Framework for Temporal Distribution Generalization in
Industry-Scale Recommender Systems", arXiv 2511.21032 (the linear encoder before them). What training adds to it
(copies, decoder, noise) is in ``training.elbo_tds`` and takes no part here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import SnapshotError
from engine.recommender.fields import FIRST, UNSEEN, Rows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Layer = tuple[Float32, Float32]

#: What LeakyReLU multiplies a negative number by.
LEAK = np.float32(0.01)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Where the embeddings of a side's fields of one kind lie in a table.

    Parameters
    ----------
    start : ndarray of int64, shape (F,)
        First row of each field.
    size : ndarray of int64, shape (F,)
        Rows that each field has. A code beyond them is newer than the model, and read as one that was never seen.
    """

    start: Int64
    size: Int64

    def rows(self, codes: NDArray[np.int32]) -> Int64:
        """Return the rows of the table for codes of shape (n, F) or (n, F, L)."""
        if codes.shape[1] != len(self.start):
            raise ValueError(f"{codes.shape[1]} fields of a kind of which the model has {len(self.start)}")
        each = (-1, *(1,) * (codes.ndim - 2))
        return np.where(codes < self.size.reshape(each), codes, UNSEEN) + self.start.reshape(each)


@dataclass(frozen=True, eq=False)
class Tower:
    """One side of the model: look-ups, the encoder's mean, and the tower network.

    Parameters
    ----------
    statistical, categorical, sequential
        Look-ups of the fields: of the first in the table of buckets, of the others in the table of codes.
    encoder : pair of ndarray of float32, shapes (D, d_z) and (d_z,), or None
        Mean of q(z|x), x W + b. None: the network stands on x itself.
    layers : sequence of pairs of ndarray of float32, shapes (in, out) and (out,)
        The network, LeakyReLU after each layer, the last one too; its outputs are a vector for each task, one after
        the other.
    """

    statistical: Lookup
    categorical: Lookup
    sequential: Lookup
    encoder: Layer | None
    layers: tuple[Layer, ...]
    _folded: tuple[Layer, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a tower needs at least one layer")
        chain = ([] if self.encoder is None else [self.encoder]) + list(self.layers)
        shapes = [W.shape for W, _ in chain]
        if any(before[1] != after[0] for before, after in itertools.pairwise(shapes)):
            raise ValueError(f"layers of shapes {shapes} do not follow each other")
        folded = self.layers
        if self.encoder is not None:
            # No activation stands between the encoder and the first layer, so that their product is one layer.
            (V, c), (W, b) = self.encoder, self.layers[0]
            W64 = W.astype(np.float64)
            product = (V.astype(np.float64) @ W64).astype(np.float32), (c @ W64 + b).astype(np.float32)
            folded = (product, *self.layers[1:])
        object.__setattr__(self, "_folded", folded)

    @property
    def width(self) -> int:
        """Numbers that the network gives for one row."""
        return int(self.layers[-1][1].size)

    def inputs(self, rows: Rows, buckets: Float32, codes: Float32) -> Float32:
        """Return x, the embeddings of a row's fields one after the other: shape (n, D)."""
        parts = (
            buckets[self.statistical.rows(rows.statistical)],
            codes[self.categorical.rows(rows.categorical)],
            mean_entry(codes[self.sequential.rows(rows.sequential)], rows.sequential),
        )
        n = len(rows)
        return np.concatenate([*(part.reshape(n, part.shape[1] * part.shape[2]) for part in parts), rows.dense], axis=1)

    def outputs(self, rows: Rows, buckets: Float32, codes: Float32) -> Float32:
        """Return what the network gives: shape (n, width)."""
        x = self.inputs(rows, buckets, codes)
        for W, b in self._folded:
            x = x @ W + b
            np.maximum(x, LEAK * x, out=x)
        return x


def mean_entry(entries: Float32, sequential: NDArray[np.int32]) -> Float32:
    """Return the mean embedding of each list's entries, 0 for an empty one: (n, Q, L, E) becomes (n, Q, E)."""
    there = (sequential != 0).astype(np.float32)
    total = np.einsum("nql,nqle->nqe", there, entries)
    mean: Float32 = total / np.maximum(there.sum(axis=2), np.float32(1))[..., None]
    return mean


@dataclass(frozen=True, eq=False)
class TwoTower:
    """A model of two towers: the logit of a task is the dot product of the user's and the item's vectors for it.

    Parameters
    ----------
    tasks
        Names of what is predicted, such as ``("click", "purchase")``.
    buckets : ndarray of float32, shape (rows, E)
        Embeddings of the buckets of all statistical fields.
    codes : ndarray of float32, shape (rows, E)
        Embeddings of the codes of all vocabularies.
    user, item
        The towers.

    Raises
    ------
    ValueError
        The towers do not give vectors of one size for every task, or look up rows that are not there.
    """

    kind: ClassVar[str] = "two_tower"

    tasks: tuple[str, ...]
    buckets: Float32
    codes: Float32
    user: Tower
    item: Tower

    def __post_init__(self) -> None:
        if not self.tasks or self.user.width != self.item.width or self.user.width % len(self.tasks):
            raise ValueError(
                f"towers of widths {self.user.width} and {self.item.width} do not give vectors of one size for "
                f"{len(self.tasks)} tasks"
            )
        for side, tower in (("user", self.user), ("item", self.item)):
            for kind, lookup, table in (
                ("statistical", tower.statistical, self.buckets),
                ("categorical", tower.categorical, self.codes),
                ("sequential", tower.sequential, self.codes),
            ):
                if len(lookup.start) and int((lookup.start + lookup.size).max()) > len(table):
                    raise ValueError(f"{side} fields, {kind}: rows beyond the table's {len(table)}")
                if kind != "statistical" and len(lookup.size) and int(lookup.size.min()) < FIRST:
                    raise ValueError(f"{side} fields, {kind}: each needs rows for missing and unseen")

    @property
    def d(self) -> int:
        """Size of the vectors of one task."""
        return self.user.width // len(self.tasks)

    def user_vectors(self, rows: Rows) -> Float32:
        """Return the vectors of users: shape (n, n_tasks, d)."""
        return self.user.outputs(rows, self.buckets, self.codes).reshape(len(rows), len(self.tasks), self.d)

    def item_vectors(self, rows: Rows) -> Float32:
        """Return the vectors of items: shape (n, n_tasks, d)."""
        return self.item.outputs(rows, self.buckets, self.codes).reshape(len(rows), len(self.tasks), self.d)

    def logits(self, user: Float32, items: Float32) -> Float32:
        """Return the logit of each item and task.

        Parameters
        ----------
        user : ndarray of float32, shape (n_tasks, d)
        items : ndarray of float32, shape (n, n_tasks, d)

        Returns
        -------
        ndarray of float32, shape (n, n_tasks)
        """
        found: Float32 = np.einsum("td,ntd->nt", user, items)
        return found

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything as plain arrays, from which :meth:`from_arrays` makes an equal model."""
        found: dict[str, NDArray[np.generic]] = {
            "tasks": np.frombuffer(json.dumps(self.tasks).encode(), np.uint8),
            "buckets": self.buckets,
            "codes": self.codes,
        }
        for side, tower in (("user", self.user), ("item", self.item)):
            for kind in ("statistical", "categorical", "sequential"):
                lookup: Lookup = getattr(tower, kind)
                found[f"{side}.{kind}"] = np.stack([lookup.start, lookup.size])
            if tower.encoder is not None:
                found[f"{side}.encoder.W"], found[f"{side}.encoder.b"] = tower.encoder
            for number, (W, b) in enumerate(tower.layers):
                found[f"{side}.layer{number}.W"], found[f"{side}.layer{number}.b"] = W, b
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model of such arrays; raises ``SnapshotError`` if one is missing or does not fit."""
        try:
            return cls(
                tasks=tuple(json.loads(arrays["tasks"].tobytes())),
                buckets=np.asarray(arrays["buckets"], np.float32),
                codes=np.asarray(arrays["codes"], np.float32),
                user=_tower(arrays, "user"),
                item=_tower(arrays, "item"),
            )
        except (KeyError, ValueError) as error:
            raise SnapshotError(
                f"two-tower model: {error}; the arrays are not those of one model; restore the file from a copy"
            ) from error


def _tower(arrays: Mapping[str, NDArray[np.generic]], side: str) -> Tower:
    def lookup(kind: str) -> Lookup:
        start, size = np.asarray(arrays[f"{side}.{kind}"], np.int64)
        return Lookup(start, size)

    def layer(name: str) -> Layer:
        return np.asarray(arrays[f"{side}.{name}.W"], np.float32), np.asarray(arrays[f"{side}.{name}.b"], np.float32)

    count = sum(key.startswith(f"{side}.layer") and key.endswith(".W") for key in arrays)
    return Tower(
        statistical=lookup("statistical"),
        categorical=lookup("categorical"),
        sequential=lookup("sequential"),
        encoder=layer("encoder") if f"{side}.encoder.W" in arrays else None,
        layers=tuple(layer(f"layer{number}") for number in range(count)),
    )
