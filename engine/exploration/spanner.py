"""Barycentric spanners: a few rows of which every other is a combination with small coefficients.

Awerbuch and Kleinberg, *Online Linear Optimization and Adaptive Routing*, JCSS 2008; over rescaled rows by Zhu, Foster,
Langford and Mineiro, *Contextual Bandits with Large Action Spaces: Made Practical*, ICML 2022.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.exploration.base import Float64
from engine.exploration.compiled import compiled

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
    return np.sort(_spanner(np.ascontiguousarray(rows), weights, C))


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


@compiled("float64[:,::1](float64[:,::1])", nogil=True)
def _duals(basis: Float64) -> Float64:
    """Return G with coefficients c = G x of any x in the span of the rows of ``basis``."""
    return np.ascontiguousarray(np.linalg.pinv(basis).T)


@compiled(
    "Tuple((int64, int64, float64))(float32[:,::1], float64[::1], float64[::1], float64[:,::1], float64)", nogil=True
)
def _worst(rows: Float32, weights: Float64, squared: Float64, duals: Float64, bound: float) -> tuple[int, int, float]:
    """Return row, place in the spanner and size of the greatest coefficient that exceeds ``bound``; row -1: none does.

    A row is passed over where its length alone keeps its coefficients below the bound (Cauchy-Schwarz). The others are
    multiplied in blocks.
    """
    n, width = rows.shape
    longest = 0.0
    for k in range(len(duals)):
        longest = max(longest, np.dot(duals[k], duals[k]))
    transposed = np.ascontiguousarray(duals.T).astype(np.float32)
    block = np.empty((_BLOCK, width), dtype=np.float32)
    index = np.empty(_BLOCK, dtype=np.int64)
    found, place, size = -1, -1, bound
    filled = 0
    for i in range(n):
        if squared[i] * longest > size * size:
            scale = np.float32(weights[i])
            for j in range(width):
                block[filled, j] = scale * rows[i, j]
            index[filled] = i
            filled += 1
        if filled == _BLOCK or (i == n - 1 and filled > 0):
            coefficients = np.dot(block[:filled], transposed)
            for r in range(filled):
                for k in range(len(duals)):
                    if abs(coefficients[r, k]) > size:
                        found, place, size = index[r], k, abs(coefficients[r, k])
            filled = 0
    return found, place, size


@compiled("int64[::1](float32[:,::1], float64[::1], float64)", nogil=True)
def _spanner(rows: Float32, weights: Float64, bound: float) -> Int64:
    n, width = rows.shape
    squared = _squared_lengths(rows, weights)
    longest = squared.max()
    picks = np.empty(min(n, width), dtype=np.int64)
    if longest == 0.0:
        return picks[:0]

    # First picks: each time the row that is farthest from the span of those before it, among the longest rows.
    pool = np.arange(n)
    size = min(n, _POOL * width)
    if size < n:
        least = np.partition(squared, n - size)[n - size]
        pool = np.flatnonzero(squared >= least)
    rank = 0
    orthonormal = np.zeros((len(picks), width))
    while True:
        residual = squared[pool].copy()
        scaled = np.empty((len(pool), width))
        for p in range(len(pool)):
            for j in range(width):
                scaled[p, j] = weights[pool[p]] * rows[pool[p], j]
        for k in range(rank):
            residual -= np.dot(scaled, orthonormal[k]) ** 2
        before = rank
        while rank < len(picks):
            farthest = int(residual.argmax())
            if residual[farthest] <= _RANK * _RANK * longest:
                break
            direction = scaled[farthest].copy()
            for _ in range(2):  # once more against rounding
                for k in range(rank):
                    direction -= np.dot(orthonormal[k], direction) * orthonormal[k]
            length = np.sqrt(np.dot(direction, direction))
            if length <= _RANK * np.sqrt(longest):
                residual[farthest] = 0.0
                continue
            orthonormal[rank] = direction / length
            picks[rank] = pool[farthest]
            residual -= np.dot(scaled, orthonormal[rank]) ** 2
            residual[farthest] = 0.0
            rank += 1
        if len(pool) == n or rank == len(picks) or (rank == before and before > 0):
            break
        # What the longest rows do not span may be spanned by others: then all are looked at, once.
        pool = np.arange(n)

    basis = np.empty((rank, width))
    for k in range(rank):
        for j in range(width):
            basis[k, j] = weights[picks[k]] * rows[picks[k], j]
    duals = _duals(basis)
    # Each swap multiplies the determinant by more than the bound: it comes to an end.
    while True:
        row, place, _ = _worst(rows, weights, squared, duals, bound)
        if row < 0:
            return picks[:rank]
        x = weights[row] * rows[row].astype(np.float64)
        coefficients = np.dot(duals, x)
        if abs(coefficients[place]) <= bound:  # by rounding alone
            return picks[:rank]
        picks[place] = row
        renewed = duals[place] / coefficients[place]
        for k in range(rank):
            if k != place:
                duals[k] -= coefficients[k] * renewed
        duals[place] = renewed
