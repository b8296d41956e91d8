"""What R-BOCPD believes about a stream at each time: the posterior of the time since the last change, exactly.

For people who look at an alarm, not for watching: the detector itself needs the most probable start alone.
"""

from __future__ import annotations

import numpy as np

from monitoring.detector import FloatArray, IntArray
from monitoring.rbocpd.tables import LENGTH, log_gamma_ratios
from monitoring.weights import FALLEN, ShapedWeight


def posterior(categories: IntArray, k: int, weight: ShapedWeight, points: int = 200) -> tuple[IntArray, FloatArray]:
    """Return times, and the probability of each possible start of the current segment at each of them.

    With no change before the first observation, and the weight as the odds of a change at s; ``s = 0`` is none.

    Parameters
    ----------
    categories
        Observations in 0..k - 1, at most 100 000.
    k
        Number of categories.
    weight
        Of the detector.
    points
        How many times, and how many starts, are looked at: evenly over the stream.

    Returns
    -------
    times : ndarray of int64, shape (t,)
        Observations seen; starts are those before the last.
    belief : ndarray of float64, shape (t, t)
        Row i: at ``times[i]``, the probability of a segment that began between start j and the next one.

    Examples
    --------
    >>> times, belief = posterior(np.array([0] * 150 + [1] * 50), 2, ShapedWeight(1e-6, 0.5))
    >>> int(times[belief[-1].argmax()])
    150
    """
    n = len(categories)
    if not 2 <= n < LENGTH - k:
        raise ValueError(f"a posterior needs 2 to {LENGTH - k - 1} observations, got {n}")
    counts = np.zeros((n + 1, k), np.int64)
    counts[1:] = np.cumsum(categories[:, None] == np.arange(k), axis=0)
    grid = np.unique(np.linspace(0, n, min(points, n) + 1).round().astype(np.int64))
    belief = np.zeros((len(grid), len(grid)))
    belief[0, 0] = 1.0
    for row, t in enumerate(grid.tolist()):
        if t == 0:
            continue
        starts = grid[:row]
        before, after = counts[starts], counts[t] - counts[starts]
        with np.errstate(divide="ignore"):
            logs = _evidence(before) + _evidence(after) - _evidence(counts[[t]]) + _log_weight(weight, starts, t)
        logs[0] = 0.0
        shares = np.exp(logs - logs.max())
        belief[row, :row] = shares / shares.sum()
    return grid, belief


def _evidence(counts: IntArray) -> FloatArray:
    """Log of the probability of sequences with these counts, by the rule of Krichevsky and Trofimov."""
    k = counts.shape[1]
    result: FloatArray = log_gamma_ratios(1)[counts].sum(axis=1) - log_gamma_ratios(k)[counts.sum(axis=1)]
    return result


def _log_weight(weight: ShapedWeight, starts: IntArray, t: int) -> FloatArray:
    q = np.log(starts * (t - starts) / t)
    late = weight.late_exponent * (np.clip(q, np.log(weight.knee), np.log(weight.ceiling)) - np.log(weight.knee))
    fallen = np.log(weight.fall) * np.clip(np.log(t / weight.horizon) / np.log(FALLEN), 0.0, 1.0)
    result: FloatArray = np.log(weight.scale) + weight.exponent * q + late - fallen
    return result


def expected_delay(target: FloatArray, changed: FloatArray, before: int, weight: ShapedWeight) -> int | None:
    """Return how many observations after a change the test succeeds, if each comes as often as expected.

    Parameters
    ----------
    target, changed
        Shares of the categories before and after, shape (K,).
    before
        Observations before the change.
    weight
        Of the detector.

    Returns
    -------
    int or None
        ``None``: not within as many observations as before.

    Examples
    --------
    >>> expected_delay(np.array([0.5, 0.5]), np.array([0.1, 0.9]), 1_000, ShapedWeight(1e-6, 0.5))
    40
    """
    before = min(before, LENGTH // 2 - len(target))
    old = np.round(target * before).astype(np.int64)
    low, high = 1, before
    found = None
    while low <= high:
        middle = (low + high) // 2
        new = np.round(changed * middle).astype(np.int64)
        n1, n = int(old.sum()), int(old.sum() + new.sum())
        if new.sum() == 0:
            low = middle + 1
            continue
        gain = (
            _evidence(old[None]) + _evidence(new[None]) - _evidence((old + new)[None])
            + _log_weight(weight, np.array([n1]), n)
        )  # fmt: skip
        if gain[0] > 0.0:
            found, high = middle, middle - 1
        else:
            low = middle + 1
    return found
