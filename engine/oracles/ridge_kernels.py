"""Compiled loops of ``recursive_ridge``, which says what they compute; imported when the first one is made.

Rows are mostly zeros where features are categories, so every product with a row runs over its non-zero entries, as
sums of rows of the (symmetric) matrix: each of those is contiguous, and the order of summation is that of the row.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float64, int64, types, void
from numpy.typing import NDArray

from engine.compiled import compiled, read

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


_ROWS = read(float64, 2)
_VECTOR = read(float64, 1)
_CODES = read(int64, 1)


@compiled(boolean(_CODES, int64))
def within(codes: Int64, most: int) -> bool:
    """Say whether every code is one of 0, 1, ..., ``most``: a tenth of what two reductions of NumPy take."""
    wrong = 0
    for code in codes:
        wrong += code < 0 or code > most
    return wrong == 0


@compiled(int64(_ROWS, int64, int64, int64, int64[::1]))
def nonzero(Z: Float64, row: int, start: int, stop: int, columns: Int64) -> int:
    """Write the columns of a row that are not 0, and return how many there are."""
    count = 0
    for j in range(start, stop):
        if Z[row, j] != 0.0:
            columns[count] = j
            count += 1
    return count


@compiled(void(_ROWS, _CODES, _ROWS, float64[::1]))
def score(Z: Float64, codes: Int64, theta: Float64, out: Float64) -> None:
    """Write z' theta[code] of each row."""
    for row in range(len(Z)):
        code = codes[row]
        total = 0.0
        for j in range(Z.shape[1]):
            total += Z[row, j] * theta[code, j]
        out[row] = total


@compiled(boolean(_ROWS, int64, int64))
def same(Z: Float64, row: int, stop: int) -> bool:
    """Say whether a row agrees with the one before it in the columns before ``stop``."""
    j = 0
    while j < stop and Z[row, j] == Z[row - 1, j]:
        j += 1
    return j == stop


@compiled(void(_ROWS, _CODES, int64, read(float64, 3), float64[::1]))
def quadratic(Z: Float64, blocks: Int64, context: int, P: Float64, out: Float64) -> None:
    """Write z' P[block] z of each row.

    P z is summed over the first ``context`` columns once for neighbouring rows that share them and the block, and
    then over the others, so that a row has the same bits wherever it stands.
    """
    d = Z.shape[1]
    columns = np.empty(d, dtype=np.int64)
    first = np.zeros(d)
    whole = np.empty(d)
    n = 0
    for row in range(len(Z)):
        block = blocks[row]
        if row == 0 or blocks[row - 1] != block or not same(Z, row, context):
            n = nonzero(Z, row, 0, context, columns)
            first[:] = 0.0
            for a in range(n):
                x, j = Z[row, columns[a]], columns[a]
                for i in range(d):
                    first[i] += x * P[block, j, i]
        elif same(Z, row, d):
            out[row] = out[row - 1]
            continue
        m = nonzero(Z, row, context, d, columns[n:])
        whole[:] = first
        for a in range(n, n + m):
            x, j = Z[row, columns[a]], columns[a]
            for i in range(d):
                whole[i] += x * P[block, j, i]
        total = 0.0
        for a in range(n + m):
            total += Z[row, columns[a]] * whole[columns[a]]
        out[row] = max(total, 0.0)


@compiled((_ROWS, int64, int64[::1], int64, read(float64, 3), _ROWS, _ROWS, _VECTOR, int64, float64[::1]))
def gain(
    Z: Float64,
    row: int,
    columns: Int64,
    n: int,
    P: Float64,
    m: Float64,
    L: Float64,
    prior: Float64,
    k: int,
    u: Float64,
) -> tuple[float, float]:
    """Write u = P z; return z'(m + P L prior) and z' P z."""
    d = len(u)
    u[:] = 0.0
    for a in range(n):
        x, j = Z[row, columns[a]], columns[a]
        for i in range(d):
            u[i] += x * P[k, j, i]
    mean = q = 0.0
    for a in range(n):
        x, j = Z[row, columns[a]], columns[a]
        mean += x * m[k, j]
        q += x * u[j]
    for i in range(d):
        mean += u[i] * L[k, i] * prior[i]
    return mean, q


@compiled(
    void(
        _ROWS, _CODES, read(float64, 3), _ROWS, _ROWS, boolean, float64, float64, float64[::1], float64[::1]
    )
)  # fmt: skip
def follow(
    Z: Float64,
    codes: Int64,
    P: Float64,
    m: Float64,
    L: Float64,
    hierarchical: bool,
    low: float,
    noise: float,
    mean: Float64,
    std: Float64,
) -> None:
    """Write low + z'(m + P L m[0]) and noise sqrt(z' P z) of each row, with the matrices of its code.

    ``m[0]`` enters where ``hierarchical``, and no coefficients need to be there.
    """
    d = Z.shape[1]
    columns = np.empty(d, dtype=np.int64)
    u = np.empty(d)
    nothing = np.zeros(d)
    for row in range(len(Z)):
        k = codes[row]
        n = nonzero(Z, row, 0, d, columns)
        value, square = gain(Z, row, columns, n, P, m, L, m[0] if hierarchical and k > 0 else nothing, k, u)
        mean[row] = low + value
        std[row] = noise * math.sqrt(max(square, 0.0))


@compiled(
    boolean(
        _ROWS, int64, int64[::1], int64, float64, float64, float64, float64, float64, float64[::1],
        float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1], float64[:, ::1], int64[::1],
        int64, int64, float64,
    )
)  # fmt: skip
def update(
    Z: Float64,
    row: int,
    columns: Int64,
    n: int,
    y: float,
    w: float,
    forgetting: float,
    q: float,
    mine: float,
    u: Float64,
    A: Float64,
    b: Float64,
    P: Float64,
    m: Float64,
    L: Float64,
    age: Int64,
    k: int,
    interval: int,
    far: float,
) -> bool:
    """Take a row into block k, given u = P z and q = z' P z; say whether P and m must be solved for anew.

    They must every ``interval`` rows, and where q is so great that the rank-one update would lose digits. The
    statistics A and b are right in any case.
    """
    d = len(u)
    if forgetting < 1.0:
        A[k] *= forgetting
        b[k] *= forgetting
        L[k] *= forgetting
    for a in range(n):
        i = columns[a]
        b[k, i] += y * w * Z[row, i]
        for c in range(n):
            # The product of the entries first: A stays symmetric to the bit too.
            A[k, i, columns[c]] += w * (Z[row, i] * Z[row, columns[c]])
    age[k] += 1
    if age[k] >= interval or not w * q <= far:
        return True
    # Of one factor, so that P stays symmetric to the bit.
    denominator = forgetting + w * q
    root = math.sqrt(w / denominator)
    error = (y - mine) * w / denominator
    for i in range(d):
        m[k, i] += u[i] * error
    for i in range(d):
        u[i] *= root
    for i in range(d):
        ui = u[i]
        if ui != 0.0:
            for j in range(d):
                P[k, i, j] -= ui * u[j]
    if forgetting < 1.0:
        P[k] /= forgetting
    return False


@compiled(
    (
        _ROWS, _CODES, _VECTOR, _VECTOR, int64, int64, float64, int64, float64,
        float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1], float64[:, ::1], int64[::1],
        float64[::1],
    ),
    nogil=True,
)  # fmt: skip
def learn(
    Z: Float64,
    codes: Int64,
    rewards: Float64,
    weights: Float64,
    start: int,
    structure: int,
    forgetting: float,
    interval: int,
    far: float,
    A: Float64,
    b: Float64,
    P: Float64,
    m: Float64,
    L: Float64,
    age: Int64,
    noise: Float64,
) -> tuple[int, bool, bool]:
    """Learn rows from ``start`` on; return where to go on, and whether block 0 and the row's own are to be solved for.

    ``structure``: 0 shared, 1 by action, 2 by action and drawn to the shared one. ``noise``: weighted squared errors
    before learning, each over 1 + w z' P z, and the weights.
    """
    d = Z.shape[1]
    columns = np.empty(d, dtype=np.int64)
    u0 = np.empty(d)
    u = np.empty(d)
    nothing = np.zeros(d)
    for row in range(start, len(Z)):
        w, y, code = weights[row], rewards[row], codes[row]
        n = nonzero(Z, row, 0, d, columns)
        mean0 = q0 = mean = q = 0.0
        shared = structure != 1 or code == 0
        own = structure != 0 and code > 0
        if shared:
            mean0, q0 = gain(Z, row, columns, n, P, m, L, nothing, 0, u0)
        if own:
            mean, q = gain(Z, row, columns, n, P, m, L, m[0] if structure == 2 else nothing, code, u)
        if forgetting < 1.0:
            noise *= forgetting
        error = y - (mean if own else mean0)
        noise[0] += w * error * error / (1.0 + w * (q if own else q0))
        noise[1] += w
        again0 = again = False
        if own:
            # The own m holds the data alone; the draw to the shared one is added when it is asked for.
            alone = 0.0
            for a in range(n):
                alone += Z[row, columns[a]] * m[code, columns[a]]
            again = update(
                Z, row, columns, n, y, w, forgetting, q, alone, u, A, b, P, m, L, age, code, interval, far
            )  # fmt: skip
        if shared:
            again0 = update(
                Z, row, columns, n, y, w, forgetting, q0, mean0, u0, A, b, P, m, L, age, 0, interval, far
            )  # fmt: skip
        if again0 or again:
            return row + 1, again0, again
    return len(Z), False, False


@compiled(void(read(types.float32, 2), _ROWS, _VECTOR, boolean, int64, float64[:, ::1]))
def affine(X: NDArray[np.float32], W: Float64, offset: Float64, cosine: bool, at: int, out: Float64) -> None:
    """Write f(X W + offset) of each row from column ``at`` on, summed in the order of the columns of X.

    f is max(0, .), or the cosine times the root of 2 / columns, so that all together have norm 1.
    """
    size = W.shape[1]
    unit = math.sqrt(2.0 / max(size, 1))
    for row in range(len(X)):
        j = 0
        while row > 0 and j < X.shape[1] and X[row, j] == X[row - 1, j]:
            j += 1
        if row > 0 and j == X.shape[1]:
            out[row, at : at + size] = out[row - 1, at : at + size]
            continue
        out[row, at : at + size] = offset
        for j in range(X.shape[1]):
            x = float64(X[row, j])
            if x != 0.0:
                for i in range(size):
                    out[row, at + i] += x * W[j, i]
        for i in range(at, at + size):
            out[row, i] = math.cos(out[row, i]) * unit if cosine else max(out[row, i], 0.0)


@compiled(void(read(types.float32, 2), float64[:, ::1]))
def columns_of(X: NDArray[np.float32], out: Float64) -> None:
    """Write 1 and the columns of X into the first columns of each row, and 0 into the others."""
    for row in range(len(X)):
        out[row, 0] = 1.0
        for j in range(X.shape[1]):
            out[row, 1 + j] = X[row, j]
        out[row, 1 + X.shape[1] :] = 0.0
