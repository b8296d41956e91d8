"""How heavy the tail of the importance weights is: whether a few rows decide the estimate.

Hill, *A Simple General Approach to Inference About the Tail of a Distribution*, Annals of Statistics 1975.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.evaluation.base import Float64

#: The tail: so many of the greatest weights, as a share, and at least so many.
TAIL = 0.01
LEAST = 10


@dataclass(frozen=True)
class WeightTail:
    """The greatest weights.

    Attributes
    ----------
    share : float
        Of the sum of all weights, what the greatest 1 % of the rows have: 0.01 where all are equal.
    hill : float
        Index of a Pareto tail with ``P(W > w) ~ w^-hill``. Below 2 the weights have no variance and below 1 no mean:
        intervals by standard errors then say nothing. Infinite where the greatest are equal, ``nan`` for too
        few rows.
    """

    share: float
    hill: float


def weight_tail(weights: Float64) -> WeightTail:
    """Describe the tail of the weights, shape (n,).

    The index is Hill's, of the greatest 1 % (and at least 10) of the weights over the next one: of bounded weights,
    which logged floors make all of them in the end, it says how they look at this size of sample.

    >>> weight_tail(np.ones(1_000))
    WeightTail(share=0.01, hill=inf)
    >>> pareto = 1.0 / np.linspace(0.0005, 0.9995, 1_000) ** (1 / 1.5)  # quantiles of a Pareto law of index 1.5
    >>> round(weight_tail(pareto).hill, 1)
    1.5
    """
    n = len(weights)
    count = max(1, math.ceil(TAIL * n))
    greatest = np.sort(np.partition(weights, n - count)[n - count :])
    total = float(weights.sum())
    share = float(greatest.sum()) / total if total > 0.0 else 0.0
    count = max(count, LEAST)
    if n <= count:
        return WeightTail(share, float("nan"))
    tail = np.sort(np.partition(weights, n - count - 1)[n - count - 1 :])
    if tail[0] <= 0.0:
        return WeightTail(share, float("nan"))
    excess = float(np.log(tail[1:] / tail[0]).mean())
    return WeightTail(share, 1.0 / excess if excess > 1e-12 else float("inf"))
