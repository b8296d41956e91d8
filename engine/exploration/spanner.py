"""Barycentric spanners: a few rows of which every other is a combination with small coefficients.

Awerbuch and Kleinberg, *Online Linear Optimization and Adaptive Routing*, JCSS 2008; over rescaled rows by Zhu, Foster,
Langford and Mineiro, *Contextual Bandits with Large Action Spaces: Made Practical*, ICML 2022.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.exploration.base import Float64

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

#: Greatest coefficient.
C = 2.0
#: Part of the longest row below which a row counts as lying in the span of others.
_RANK = 1e-5
#: Rows that the first picks are sought among, in multiples of the width.
_POOL = 16
_BLOCK = 1_024


def spanner(rows: Float32, weights: Float64) -> Int64:
    """Return indices of linearly independent rows that span all, with coefficients of at most 2 in absolute value.

    Columns in which all rows agree are left out: they move all scores alike, and no gap. Where that leaves nothing,
    there is nothing to span and the result is empty.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, width)
    weights : ndarray of float64, shape (n,)
        Positive. What is spanned is ``weights[i] * rows[i]``.

    Returns
    -------
    ndarray of int64, shape (rank,)
        Ascending.

    Examples
    --------
    >>> import numpy as np
    >>> spanner(np.array([[1, 0], [0.5, 0.5], [0, 1], [0.1, 0]], dtype=np.float32), np.ones(4)).tolist()
    [0, 2]
    """
    varying = _varying(rows)
    if not varying.all():
        rows = rows[:, varying]
    if rows.shape[1] == 0:
        return np.empty(0, dtype=np.int64)
    rows = np.ascontiguousarray(rows)
    squared = _squared_lengths(rows, weights)
    return np.sort(_spanner(rows, weights, squared, _pool(squared, _POOL * rows.shape[1]), C))


def _pool(squared: Float64, size: int) -> Int64:
    """Return about ``size`` rows to begin with: half of them the longest, half a sample.

    The sample goes by a hash of the length's last bits, so that the order of rows does not matter. Of rows that tie in
    length only so many are taken.
    """
    n = len(squared)
    if n <= size:
        return np.arange(n)
    # NumPy's partition is ten times as fast as Numba's, and from this end also where most lengths are the same.
    least = -float(np.partition(-squared, size // 2 - 1)[size // 2 - 1])
    return _taken(squared, least, 0.5 * size / n, size)


@compiled("boolean[::1](float32[:,::1])", nogil=True)
def _varying(rows: Float32) -> NDArray[np.bool_]:
    """Say in which columns not all rows agree."""
    varying = np.zeros(rows.shape[1], dtype=np.bool_)
    for column in range(rows.shape[1]):
        for row in range(1, rows.shape[0]):
            if rows[row, column] != rows[0, column]:
                varying[column] = True
                break
    return varying


@compiled("float64[::1](float32[:,::1], float64[::1])", nogil=True, fastmath=True)
def _squared_lengths(rows: Float32, weights: Float64) -> Float64:
    lengths = np.empty(len(rows))
    for i in range(len(rows)):
        total = np.float32(0.0)
        for j in range(rows.shape[1]):
            total += rows[i, j] * rows[i, j]
        lengths[i] = weights[i] * weights[i] * total
    return lengths


@compiled("int64[::1](float64[::1], float64, float64, int64)", nogil=True)
def _taken(squared: Float64, least: float, share: float, size: int) -> Int64:
    bits = squared.view(np.uint64)
    below = np.uint64(2**32 * share)
    pool = np.empty(size, dtype=np.int64)
    filled = 0
    for i in range(len(squared)):
        hashed = (bits[i] * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        if filled < size and (squared[i] >= least or hashed < below):
            pool[filled] = i
            filled += 1
    return pool[:filled]


@compiled("float64[:,::1](float32[:,::1], float64[::1], int64[::1])", nogil=True)
def _scaled(rows: Float32, weights: Float64, index: Int64) -> Float64:
    scaled = np.empty((len(index), rows.shape[1]))
    for p in range(len(index)):
        for j in range(rows.shape[1]):
            scaled[p, j] = weights[index[p]] * rows[index[p], j]
    return scaled


@compiled("int64[::1](float32[:,::1], float64[::1], float64[::1], float64[:,::1], float64, boolean[::1])", nogil=True)
def _beyond(
    rows: Float32, weights: Float64, squared: Float64, duals: Float64, bound: float, quiet: NDArray[np.bool_]
) -> Int64:
    """Return, for each place of the spanner where one exceeds ``bound``, the row with the greatest coefficient.

    A row is passed over where it is ``quiet``, or its length alone keeps its coefficients below the bound
    (Cauchy-Schwarz). The others are multiplied in blocks. Those with no coefficient beyond half of the bound become
    quiet.
    """
    n, width = rows.shape
    rank = len(duals)
    longest = 0.0
    for k in range(rank):
        longest = max(longest, np.dot(duals[k], duals[k]))
    transposed = np.ascontiguousarray(duals.T).astype(np.float32)
    block = np.empty((_BLOCK, width), dtype=np.float32)
    index = np.empty(_BLOCK, dtype=np.int64)
    found = np.full(rank, -1)
    sizes = np.full(rank, np.float32(bound))
    half = np.float32(0.5 * bound)
    filled = 0
    for i in range(n):
        if not quiet[i] and squared[i] * longest > bound * bound:
            scale = np.float32(weights[i])
            for j in range(width):
                block[filled, j] = scale * rows[i, j]
            index[filled] = i
            filled += 1
        if filled == _BLOCK or (i == n - 1 and filled > 0):
            coefficients = np.dot(block[:filled], transposed)
            for r in range(filled):
                loud = greater = False
                for k in range(rank):
                    loud |= abs(coefficients[r, k]) > half
                    greater |= abs(coefficients[r, k]) > sizes[k]
                quiet[index[r]] = not loud
                if greater:
                    for k in range(rank):
                        if abs(coefficients[r, k]) > sizes[k]:
                            found[k], sizes[k] = index[r], abs(coefficients[r, k])
            filled = 0
    return found[found >= 0]


@compiled("boolean(float64[:,::1], int64[::1], int64[::1], float64[:,::1], float64)", nogil=True)
def _swap(scaled: Float64, index: Int64, picks: Int64, duals: Float64, bound: float) -> bool:
    """Swap rows into the spanner until none of ``scaled`` has a coefficient beyond ``bound``; say whether one was.

    Each swap multiplies the determinant by more than the bound, so that it comes to an end. ``picks`` and ``duals`` are
    changed.
    """
    coefficients = np.dot(scaled, duals.T.copy())
    swapped = False
    while True:
        row, place, size = -1, -1, bound
        for r in range(len(scaled)):
            for k in range(len(duals)):
                if abs(coefficients[r, k]) > size:
                    row, place, size = r, k, abs(coefficients[r, k])
        if row < 0:
            return swapped
        swapped = True
        picks[place] = index[row]
        by = coefficients[row].copy()
        duals[place] /= by[place]
        coefficients[:, place] /= by[place]
        for k in range(len(duals)):
            if k != place:
                duals[k] -= by[k] * duals[place]
                coefficients[:, k] -= by[k] * coefficients[:, place]


@compiled("int64[::1](float32[:,::1], float64[::1], float64[::1], int64[::1], float64)", nogil=True)
def _spanner(rows: Float32, weights: Float64, squared: Float64, pool: Int64, bound: float) -> Int64:
    n, width = rows.shape
    longest = squared.max()
    picks = np.empty(min(n, width), dtype=np.int64)
    if longest == 0.0:
        return picks[:0]

    # First picks: each time the row that is farthest from the span of those before it.
    rank = 0
    orthonormal = np.zeros((len(picks), width))
    while True:
        scaled = _scaled(rows, weights, pool)
        residual = squared[pool].copy()
        for k in range(rank):
            residual -= np.dot(scaled, orthonormal[k]) ** 2
        while rank < len(picks):
            farthest = int(residual.argmax())
            if residual[farthest] <= _RANK * _RANK * longest:
                break
            direction = scaled[farthest].copy()
            for _ in range(2):  # once more against rounding
                for k in range(rank):
                    direction -= np.dot(orthonormal[k], direction) * orthonormal[k]
            length = np.sqrt(np.dot(direction, direction))
            residual[farthest] = 0.0
            if length > _RANK * np.sqrt(longest):
                orthonormal[rank] = direction / length
                picks[rank] = pool[farthest]
                residual -= np.dot(scaled, orthonormal[rank]) ** 2
                residual[farthest] = 0.0
                rank += 1
        if len(pool) == n or rank == len(picks):
            break
        # What these do not span may be spanned by others: then all are looked at.
        pool = np.arange(n)

    picks = picks[:rank]
    duals = np.ascontiguousarray(np.linalg.pinv(_scaled(rows, weights, picks)).T)
    # In the pool a little better than asked for, so that few of the others are beyond the bound.
    _swap(scaled, pool, picks, duals, 1.0 + 0.25 * (bound - 1.0))
    # A swap changes all coefficients, but those of most rows are so small that they stay below the bound.
    quiet = np.zeros(n, dtype=np.bool_)
    growth = 1.0
    while True:
        beyond = _beyond(rows, weights, squared, duals, bound, quiet)
        if len(beyond) == 0:
            return picks
        before = _scaled(rows, weights, picks)
        if not _swap(_scaled(rows, weights, beyond), beyond, picks, duals, bound):
            return picks
        # New coefficients are these combinations of the old ones.
        combinations = np.dot(duals, before.T.copy())
        growth *= np.abs(combinations).sum(axis=1).max()
        if growth > 2.0:
            quiet[:] = False
            growth = 1.0
