"""From numbers to the categories that R-BOCPD takes: by chance, which keeps the mean, or by bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from monitoring.detector import FloatArray, IntArray


def binarised(values: ArrayLike, low: float, high: float, seed: int, first: int) -> IntArray:
    """Return a one for each value with probability (value - low) / (high - low), else a zero.

    The mean is kept exactly, so that a change of the mean, and of nothing else, is a change of the zeros and ones.
    It costs the noise of the draw: up to several times the observations where values lie close together. The draw is a
    function of seed and position, so that a replay, or a restart in mid-stream, draws the same.

    Parameters
    ----------
    values
        Numbers in [low, high].
    low, high
        Range of the values.
    seed
        Whole number >= 0, one for each stream.
    first
        Position of the first value in its stream: ``detector.seen``.

    Examples
    --------
    >>> binarised([0.0, 1.0, 0.3, 0.3], 0.0, 1.0, seed=7, first=0).tolist()[:2]
    [0, 1]
    """
    x = np.asarray(values, np.float64)
    if not low < high:
        raise ValueError(f"low must be less than high, got {low} and {high}")
    if not np.all((x >= low) & (x <= high)):
        raise ValueError(f"values must lie between {low} and {high}, got {x[~((x >= low) & (x <= high))][0]}")
    return (_uniforms(seed, first, len(x)) < (x - low) / (high - low)).astype(np.int64)


def _uniforms(seed: int, first: int, count: int) -> FloatArray:
    """Numbers in [0, 1) as a function of seed and position: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.arange(first + 1, first + count + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    result: FloatArray = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result


def quantile_edges(reference: ArrayLike, bins: int) -> FloatArray:
    """Return the inner edges of ``bins`` bins with equally many reference values in each.

    A value that is more than one quantile gets a bin of its own, so that values on either side of it are told from it;
    then there are fewer or more bins. Take the edges once, from a reference window: edges that
    follow the data hide its change.

    >>> quantile_edges(range(100), 4).tolist()
    [24.75, 49.5, 74.25]
    """
    x = np.asarray(reference, np.float64)
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    if not np.all(np.isfinite(x)) or len(x) < bins:
        raise ValueError(f"the reference must hold at least {bins} finite numbers, got {len(x)} values")
    edges, times = np.unique(np.quantile(x, np.arange(1, bins) / bins), return_counts=True)
    return np.union1d(edges, np.nextafter(edges[times > 1], np.inf))


def binned(values: ArrayLike, edges: ArrayLike) -> IntArray:
    """Return the bin of each value, 0 below the first edge; the bin after the last one takes what is no number.

    So with E edges there are E + 2 categories.

    >>> binned([-1.0, 0.5, 7.0, float("nan")], [0.0, 1.0]).tolist()
    [0, 1, 2, 3]
    """
    x = np.asarray(values, np.float64)
    inner = np.asarray(edges, np.float64)
    found = np.searchsorted(inner, x, side="right").astype(np.int64)
    found[np.isnan(x)] = len(inner) + 1
    return found


def categories_of(xs: ArrayLike, categories: int) -> IntArray:
    """Return observations as whole numbers; raises ``ValueError`` where one is not in 0..categories - 1."""
    given = np.asarray(xs)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"an observation must be a number, got {given.dtype}")
    wrong = ~((given >= 0) & (given < categories) & (np.floor(given) == given))
    if np.any(wrong):
        first = given[wrong][0] if given.ndim else given
        allowed = "0 or 1" if categories == 2 else f"a whole number in 0..{categories - 1}"
        raise ValueError(f"an observation must be {allowed}, got {first}")
    return np.ascontiguousarray(given, np.int64)
