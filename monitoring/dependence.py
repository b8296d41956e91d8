"""How much the observations of a stream depend on the one before: what a false alarm is most often made of."""

from __future__ import annotations

import math

import numpy as np

from monitoring.detector import IntArray


def lag_one(categories: IntArray) -> float:
    """Return the correlation of consecutive observations, over all categories: 0 if they are independent.

    The sum over the categories of the covariances of their indicators, as a share of the sum of the variances; with
    two categories this is the autocorrelation. NaN below two observations, or where all are the same.

    Examples
    --------
    >>> lag_one(np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])) > 0.5
    True
    >>> lag_one(np.array([0, 1] * 50)) < -0.9
    True
    """
    if len(categories) < 2:
        return math.nan
    _, codes = np.unique(categories, return_inverse=True)
    shares = np.bincount(codes) / len(codes)
    spread = 1.0 - float(shares @ shares)
    if spread <= 0.0:
        return math.nan
    before, after = codes[:-1], codes[1:]
    centre = float(shares @ shares)
    same = float(np.mean(before == after))
    return float((same - np.mean(shares[before]) - np.mean(shares[after]) + centre) / spread)
