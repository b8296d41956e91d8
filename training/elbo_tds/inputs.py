"""Rows as the model reads them: the embeddings of all fields, one after the other."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


class SideRows(NamedTuple):
    """Encoded rows of one side, their codes as places in the step's active embeddings.

    Shapes: ``statistical`` (n, S) int32 buckets; ``categorical`` (n, C) and ``sequential`` (n, Q, L) int32 places;
    ``there`` (n, Q, L) float32, 1 for an entry and 0 for padding; ``dense`` (n, D) float32.
    """

    statistical: jax.Array
    categorical: jax.Array
    sequential: jax.Array
    there: jax.Array
    dense: jax.Array

    def take(self, indices: jax.Array) -> SideRows:
        """Return the rows of these indices."""
        return SideRows(*(part[indices] for part in self))


class Embedded(NamedTuple):
    """Embeddings of rows, or of M copies of them; any number of dimensions may stand before those named.

    ``statistical`` (..., S, E), ``categorical`` (..., C, E), ``sequential`` (..., Q, E): the mean of a list's entries;
    ``dense`` (..., D).
    """

    statistical: jax.Array
    categorical: jax.Array
    sequential: jax.Array
    dense: jax.Array

    def joined(self) -> jax.Array:
        """Return x, shape (..., D_s)."""
        parts = [part.reshape(*part.shape[:-2], part.shape[-2] * part.shape[-1]) for part in self[:3]]
        return jnp.concatenate([*parts, self.dense], axis=-1)


def embedded(rows: SideRows, start: NDArray[np.int32], buckets: jax.Array, active: jax.Array) -> Embedded:
    """Return the clean embeddings of rows.

    Parameters
    ----------
    rows
        n rows.
    start : int32, shape (S,)
        First row of each statistical field in the table of buckets.
    buckets : float32, shape (rows, E)
        That table.
    active : float32, shape (U, E)
        Embeddings of the codes that come in this step.
    """
    return Embedded(
        buckets[rows.statistical + start],
        active[rows.categorical],
        mean_entry(active[rows.sequential], rows.there),
        rows.dense,
    )


def mean_entry(entries: jax.Array, there: jax.Array) -> jax.Array:
    """Return the mean of the entries (n, Q, L, E) that are there (..., n, Q, L), 0 where none is: (..., n, Q, E)."""
    total = jnp.einsum("...nql,nqle->...nqe", there, entries)
    return total / jnp.maximum(there.sum(axis=-1), 1.0)[..., None]
