"""Tables of log Gamma and log at whole counts, which all detectors of a process share."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from monitoring.detector import FloatArray

#: Entries of a table (2 MB). Beyond, Stirling's series to 1/(12 x) is exact to the last bits.
LENGTH = 1 << 18


@lru_cache(maxsize=64)
def log_gamma_ratios(twice_offset: int) -> FloatArray:
    """Return log Gamma(n + offset) - log Gamma(offset) for n = 0, 1, .., where ``twice_offset`` is 2 * offset.

    >>> log_gamma_ratios(2)[:4].round(6).tolist()  # log n!
    [0.0, 0.0, 0.693147, 1.791759]
    """
    offset = 0.5 * twice_offset
    constant = math.lgamma(offset)
    table = np.fromiter((math.lgamma(n + offset) - constant for n in range(LENGTH)), np.float64, LENGTH)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def logs() -> FloatArray:
    """Return log n for n = 0, 1, .., 0 where n is 0."""
    table = np.zeros(LENGTH)
    table[1:] = [math.log(n) for n in range(1, LENGTH)]
    table.flags.writeable = False
    return table
