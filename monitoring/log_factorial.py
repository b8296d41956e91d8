"""log n! for arrays of counts: a table that all detectors of a process share, and Stirling's series beyond it."""

from __future__ import annotations

import math

import numpy as np

from monitoring.detector import FloatArray, IntArray

#: Beyond this many entries (2 MB) the table stops growing; the series is exact to the last bits there.
TABLE_LIMIT = 1 << 18

_table: FloatArray = np.zeros(2)


def log_factorial(n: IntArray, largest: int) -> FloatArray:
    """Return log n! elementwise, in nats.

    Parameters
    ----------
    n
        Counts, of any shape, all >= 0.
    largest
        A bound that no element exceeds. The caller knows one; looking for it would cost a pass over ``n``.

    >>> log_factorial(np.array([0, 1, 5]), 5).round(6).tolist()
    [0.0, 0.0, 4.787492]
    """
    table = _grown(min(largest + 1, TABLE_LIMIT))
    if largest < len(table):
        return table[n]
    last = len(table) - 1
    result = table[np.minimum(n, last)]
    beyond = n > last
    result[beyond] = _stirling(n[beyond])
    return result


def _grown(size: int) -> FloatArray:
    """Return a table of at least ``size`` entries. An entry never depends on how the table grew."""
    global _table
    if len(_table) < size:
        start, stop = len(_table), min(max(size, 2 * len(_table)), TABLE_LIMIT)
        more = np.fromiter((math.lgamma(n + 1.0) for n in range(start, stop)), dtype=np.float64, count=stop - start)
        _table = np.concatenate([_table, more])  # a new array: readers on other threads keep the old one
    return _table


def _stirling(n: IntArray) -> FloatArray:
    """Stirling's series to 1/(12 n); the next term is below 1e-18 where this is used."""
    x = n.astype(np.float64)
    result: FloatArray = x * np.log(x) - x + 0.5 * np.log(2.0 * math.pi * x) + 1.0 / (12.0 * x)
    return result
