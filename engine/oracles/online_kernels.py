"""Compiled loops of the first-order oracles; ``engine.oracles.online`` says what they compute.

Imported when the first such oracle is made: numba takes a fifth of a second, and other oracles need none.
Signatures stand with the functions, so that everything is compiled (or read from numba's cache) at import, and no
decision waits for a compiler.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean, float64, int64, types, uint64, void
from numpy.typing import NDArray

from engine.compiled import compiled, read

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


_X = read(types.float32, 2)
_CODES = read(int64, 1)
_TABLE = read(float64, 1)
_PAIRS = read(boolean, 1)
_OUT = float64[::1]


@compiled(int64(int64, int64, int64), inline=True)
def place(i: int, j: int, mask: int) -> int:
    """Return the table entry of the pair of columns (i, j), by the finaliser of splitmix64."""
    h = uint64(i) * uint64(0x9E3779B97F4A7C15) + uint64(j) * uint64(0xC2B2AE3D27D4EB4F) + uint64(0x165667B19E3779F9)
    h = (h ^ (h >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> uint64(27))) * uint64(0x94D049BB133111EB)
    return int((h ^ (h >> uint64(31))) & uint64(mask))


@compiled(int64(_X, int64, int64, int64, int64[::1]))
def nonzero(X: Float32, row: int, start: int, stop: int, columns: Int64) -> int:
    """Write the columns of a row that are not 0, and return how many there are."""
    count = 0
    for j in range(start, stop):
        if X[row, j] != 0.0:
            columns[count] = j
            count += 1
    return count


@compiled(int64(_X, int64, int64, int64[::1], int64, _PAIRS, int64, int64[::1], float64[::1]))
def of_context(
    X: Float32, row: int, context: int, columns: Int64, n: int, pairs: Bool, mask: int, where: Int64, value: Float64
) -> int:
    """Write the features that the context alone gives; return how many."""
    where[0] = place(0, 0, mask)
    value[0] = 1.0
    count = 1
    for a in range(n):
        i = columns[a]
        x = float64(X[row, i])
        where[count] = place(0, i + 1, mask)
        value[count] = x
        count += 1
        if pairs[0]:
            for b in range(a, n):
                j = columns[b]
                where[count] = place(i + 1, j + 1, mask)
                value[count] = x * X[row, j]
                count += 1
    return count


@compiled(int64(_X, int64, int64, int64, int64[::1], int64, int64, _PAIRS, int64, int64[::1], float64[::1], int64))
def of_action(
    X: Float32,
    row: int,
    code: int,
    width: int,
    columns: Int64,
    n: int,
    n_all: int,
    pairs: Bool,
    mask: int,
    where: Int64,
    value: Float64,
    count: int,
) -> int:
    """Write the features that need the action, after the ``count`` there are; return how many there are then.

    ``columns[:n]`` are the columns of the context that are not 0, ``columns[n:n_all]`` those of the action.
    """
    for a in range(n, n_all):
        i = columns[a]
        x = float64(X[row, i])
        where[count] = place(0, i + 1, mask)
        value[count] = x
        count += 1
        if pairs[1]:
            for b in range(n):
                where[count] = place(columns[b] + 1, i + 1, mask)
                value[count] = x * X[row, columns[b]]
                count += 1
        if pairs[3]:
            for b in range(a, n_all):
                where[count] = place(i + 1, columns[b] + 1, mask)
                value[count] = x * X[row, columns[b]]
                count += 1
    if code > 0:
        identity = width + code
        where[count] = place(0, identity, mask)
        value[count] = 1.0
        count += 1
        for a in range(n_all):
            if (pairs[2] and a < n) or (pairs[4] and a >= n):
                where[count] = place(columns[a] + 1, identity, mask)
                value[count] = X[row, columns[a]]
                count += 1
    return count


@compiled(int64(int64, int64, _PAIRS))
def room(n: int, m: int, pairs: Bool) -> int:
    """Return how many features ``n`` columns of the context and ``m`` of the action make at most."""
    size = 2 + 2 * (n + m)
    if pairs[0]:
        size += n * (n + 1) // 2
    if pairs[1]:
        size += n * m
    if pairs[3]:
        size += m * (m + 1) // 2
    return size


@compiled(boolean(_X, int64, int64, int64))
def same(X: Float32, row: int, start: int, stop: int) -> bool:
    """Say whether a row agrees with the one before it in the columns ``start`` to ``stop``."""
    if row == 0:
        return False
    j = start
    while j < stop and X[row, j] == X[row - 1, j]:
        j += 1
    return j == stop


@compiled(float64(float64, float64, float64, float64), inline=True)
def spread(x: float, s: float, h: float, ridge: float) -> float:
    """Return what one feature adds to the variance: x^2 / (ridge s^2 + H), with s the greatest \\|x\\| seen."""
    s = max(s, abs(x))
    return (x / s) ** 2 / (ridge + h / s / s) if s > 0.0 else 0.0


@compiled(void(_X, _CODES, int64, _PAIRS, _TABLE, _TABLE, _TABLE, float64, _OUT, _OUT, boolean))
def score(
    X: Float32,
    codes: Int64,
    context: int,
    pairs: Bool,
    w: Float64,
    s: Float64,
    H: Float64,
    ridge: float,
    out: Float64,
    variance: Float64,
    uncertain: bool,
) -> None:
    """Write the score of each row, and its variance in units of the noise's where ``uncertain``.

    What the context alone gives is summed once for neighbouring rows that share it, and apart from the rest, so that
    a row has the same score wherever it stands.
    """
    width = X.shape[1]
    mask = len(w) - 1
    columns = np.empty(width, dtype=np.int64)
    where = np.empty(0, dtype=np.int64)
    value = np.empty(0, dtype=np.float64)
    n = of_c = 0
    sum_c = var_c = 0.0
    for row in range(len(X)):
        shared = same(X, row, 0, context)
        if not shared:
            n = nonzero(X, row, 0, context, columns)
        m = nonzero(X, row, context, width, columns[n:])
        size = room(n, m, pairs)
        if size > len(where):
            where = np.empty(size, dtype=np.int64)
            value = np.empty(size, dtype=np.float64)
            shared = False
        if not shared:
            of_c = of_context(X, row, context, columns, n, pairs, mask, where, value)
            sum_c, var_c = 0.0, 0.0
            for k in range(of_c):
                sum_c += w[where[k]] * value[k]
                if uncertain:
                    var_c += spread(value[k], s[where[k]], H[where[k]], ridge)
        count = of_action(X, row, codes[row], width, columns, n, n + m, pairs, mask, where, value, of_c)
        sum_a = var_a = 0.0
        for k in range(of_c, count):
            sum_a += w[where[k]] * value[k]
            if uncertain:
                var_a += spread(value[k], s[where[k]], H[where[k]], ridge)
        out[row] = sum_c + sum_a
        variance[row] = var_c + var_a


@compiled(float64(float64, float64, float64))
def logistic_move(score: float, target: float, push: float) -> float:
    """Return the score after the importance-invariant step for log loss: d score / d push = target - sigma(score).

    The solution is implicit: with t the logit of the target and d = score - t > 0 (d < 0 mirrors it), ``ln(e^d - 1) -
    (1 - target) d`` falls by ``push target (1 - target)``; for targets 0 and 1 it is Lambert's W (Karampatziakis and
    Langford 2011, table 1). Newton's method finds it; it never passes the target.
    """
    if target <= 1e-6 or target >= 1.0 - 1e-6:
        sign = 1.0 if target > 0.5 else -1.0
        p = sign * score
        # p + e^p has risen by push: a start that Newton's method converges from, on either side.
        if p > 30.0:
            return score  # e^-30 from the target
        goal = p + math.exp(p) + push
        q = goal if goal < 0.0 else math.log(goal + 1.0)
        for _ in range(50):
            e = math.exp(q)
            step = (q + e - goal) / (1.0 + e)
            q -= step
            if abs(step) <= 1e-14 * (1.0 + abs(q)):
                break
        return sign * q
    t = math.log(target / (1.0 - target))
    sign = 1.0 if score > t else -1.0
    share = 1.0 - target if score > t else target
    d0 = abs(score - t)
    if d0 < 1e-300:
        return score
    # ln(e^d - 1) = d + ln(1 - e^-d), so the function is ln(1 - e^-d) + (1 - share) d, rising in d.
    goal = math.log(-math.expm1(-d0)) + (1.0 - share) * d0 - push * target * (1.0 - target)
    z_low, z_high = -700.0, math.log(d0)
    z = min(z_high, max(z_low, goal if goal < 0.0 else math.log(goal / (1.0 - share) + 1.0)))
    for _ in range(100):
        d = math.exp(z)
        gap = math.log(-math.expm1(-d)) + (1.0 - share) * d - goal
        if gap > 0.0:
            z_high = z
        else:
            z_low = z
        step = gap / (d * (1.0 / math.expm1(d) + 1.0 - share)) if d < 700.0 else gap / (d * (1.0 - share))
        new = z - step
        if not z_low < new < z_high:
            new = 0.5 * (z_low + z_high)
        if abs(new - z) <= 1e-14:
            break
        z = new
    return t + sign * math.exp(z)


@compiled(
    void(
        _X, _CODES, _TABLE, _TABLE, int64, _PAIRS, boolean, float64, float64, _OUT, _OUT, _OUT, _OUT, _OUT
    ),
    nogil=True,
)  # fmt: skip
def learn(
    X: Float32,
    codes: Int64,
    targets: Float64,
    weights: Float64,
    context: int,
    pairs: Bool,
    logistic: bool,
    rate: float,
    ridge: float,
    w: Float64,
    s: Float64,
    G: Float64,
    H: Float64,
    state: Float64,
) -> None:
    """Learn rows in their order. ``state``: N, weight so far, weighted squared errors."""
    width = X.shape[1]
    mask = len(w) - 1
    columns = np.empty(width, dtype=np.int64)
    where = np.empty(0, dtype=np.int64)
    value = np.empty(0, dtype=np.float64)
    speed = np.empty(0, dtype=np.float64)
    for row in range(len(X)):
        h = weights[row]
        if h <= 0.0:
            continue
        n = nonzero(X, row, 0, context, columns)
        m = nonzero(X, row, context, width, columns[n:])
        size = room(n, m, pairs)
        if size > len(where):
            where = np.empty(size, dtype=np.int64)
            value = np.empty(size, dtype=np.float64)
            speed = np.empty(size, dtype=np.float64)
        count = of_context(X, row, context, columns, n, pairs, mask, where, value)
        count = of_action(X, row, codes[row], width, columns, n, n + m, pairs, mask, where, value, count)
        p = norm = 0.0
        for k in range(count):
            i, x = where[k], abs(value[k])
            if x > s[i]:
                # A greater unit: what was learned in the smaller one counts for less (NAG, line 3).
                if s[i] > 0.0:
                    w[i] *= s[i] / x
                s[i] = x
            if s[i] > 0.0:
                norm += (x / s[i]) ** 2
        for k in range(count):
            p += w[where[k]] * value[k]
        state[0] += h * norm
        state[1] += h
        y = targets[row]
        mu = 1.0 / (1.0 + math.exp(-min(max(p, -700.0), 700.0))) if logistic else p
        state[2] += h * (y - mu) ** 2
        bend = max(mu * (1.0 - mu), 1e-6) if logistic else 1.0
        g = mu - y
        scale = math.sqrt(state[1] / state[0])
        q = 0.0
        for k in range(count):
            i, x = where[k], value[k]
            H[i] += h * bend * x * x
            G[i] += h * g * g * x * x
            speed[k] = scale * x / (s[i] * math.sqrt(G[i])) if G[i] > 0.0 else 0.0
            q += x * speed[k]
        if q <= 0.0:
            continue
        push = h * rate * q
        move = (logistic_move(p, y, push) - p if logistic else g * math.expm1(-push)) / q
        for k in range(count):
            w[where[k]] += move * speed[k]
