"""M copies of a row: other values that its time-varying factors could have had (arXiv 2511.21032).

Each copy, field and row draws alone. A statistical field moves to a near bucket; a categorical field loses coordinates
of its embedding, or all of it; entries of a list are left out; dense vectors stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from training.elbo_tds import draws
from training.elbo_tds.config import AugmentationConfig
from training.elbo_tds.inputs import Embedded, SideRows, mean_entry


@dataclass(frozen=True, eq=False)
class SideFields:
    """The fields of a side.

    Parameters
    ----------
    start : int32, shape (S,)
        First row of each field in the table of buckets.
    filled : int32, shape (S,)
        Number of buckets that values may fall into; a row with a bucket beyond has no value.
    statistical, categorical, sequential : bool, shapes (S,), (C,), (Q,)
        Which fields of each kind are augmented.
    """

    start: NDArray[np.int32]
    filled: NDArray[np.int32]
    statistical: NDArray[np.bool_]
    categorical: NDArray[np.bool_]
    sequential: NDArray[np.bool_]


def copies(
    config: AugmentationConfig,
    M: int,
    rows: SideRows,
    of: SideFields,
    buckets: jax.Array,
    active: jax.Array,
    key: jax.Array,
) -> Embedded:
    """Return the embeddings of M copies of n rows: every part has the dimensions (M, n, ...).

    Parameters
    ----------
    config
        Laws and p.
    M
        Number of copies.
    rows, of, buckets, active
        As :func:`training.elbo_tds.inputs.embedded` takes them.
    key : uint32, shape (2,)
        The step's.
    """
    n = len(rows.statistical)
    moved = jnp.broadcast_to(rows.statistical, (M, *rows.statistical.shape))
    if config.statistical == "jitter":
        drawn = jittered(rows.statistical, of.filled, M, config, draws.stream(key, 0))
        moved = jnp.where(of.statistical, drawn, moved)
    categorical = jnp.broadcast_to(active[rows.categorical], (M, *rows.categorical.shape, active.shape[1]))
    if config.categorical != "none":
        factor = kept(config, categorical.shape, draws.stream(key, 1), draws.stream(key, 2))
        categorical = jnp.where(of.categorical[:, None], categorical * factor, categorical)
    there = rows.there
    if config.sequential == "mask":
        left_out = draws.halves(draws.stream(key, 3), (M, *there.shape), config.p) & of.sequential[:, None]
        there = jnp.where(left_out, 0.0, there)
    sequential = mean_entry(active[rows.sequential], there)
    return Embedded(
        buckets[moved + of.start],
        categorical,
        jnp.broadcast_to(sequential, (M, n, *sequential.shape[-2:])),
        jnp.broadcast_to(rows.dense, (M, *rows.dense.shape)),
    )


def jittered(
    bucket: jax.Array, filled: NDArray[np.int32], M: int, config: AugmentationConfig, key: jax.Array
) -> jax.Array:
    """Return M copies of buckets: b' = clip(b + h delta, 0, n - 1), h ~ Bernoulli(p), delta uniform on {-w, ..., w}.

    With the default width of 2 a bucket really changes with probability 0.8 p, before clipping. A missing value stays
    missing. Shapes: (n, S) becomes (M, n, S), int32.
    """
    word = draws.bits(key, (M, *bucket.shape))
    delta = draws.below(word, 2 * config.jitter + 1) - config.jitter
    moved = jnp.clip(bucket + jnp.where(draws.hits(word, config.p), delta, 0), 0, filled - 1)
    return jnp.where(bucket < filled, moved, bucket)


def kept(config: AugmentationConfig, shape: tuple[int, ...], field_key: jax.Array, key: jax.Array) -> jax.Array:
    """Return what embeddings of shape (M, n, C, E) are multiplied by.

    ``element``: inverted dropout of rate p on the coordinates of a field that was hit, e' = (1 - h) e + h Dropout_p(e).
    ``field``: 0 for a field that was hit.
    """
    hit = draws.halves(field_key, (*shape[:-1], 1), config.p)
    if config.categorical == "field":
        return jnp.where(hit, 0.0, 1.0)
    dropped = draws.halves(key, shape, config.p)
    return jnp.where(hit, jnp.where(dropped, 0.0, 1.0 / (1.0 - config.p)), 1.0)
