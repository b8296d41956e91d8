"""CappedIGW: inverse gap weighting for very many actions, with bounded importance weights.

Rucker, Zhu and Mineiro, *Infinite Action Contextual Bandits with Reusable Data Exhaust*, ICML 2023.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.compiled import compiled
from engine.exploration.base import GREATEST, Float64
from engine.exploration.base_measure import BesideUniform
from engine.exploration.summation import precise_sum
from engine.prediction import Prediction


class CappedIGW(BesideUniform):
    """Like SmoothIGW, but no action gets more than tau / K: the excess goes to those whose gap is next.

    With K candidates and the uniform base measure::

        p_a = (tau / K) / (1 + gamma * max(gap_a - beta, 0))    beta such that the sum is 1

    so that the importance weight of a uniform policy is at least 1/tau everywhere, and there is no single action that
    most decisions fall on. Where beta had to be negative, gap_a - beta stands for the maximum.

    Parameters
    ----------
    gamma_scale, gamma_exponent
        gamma = scale * learned ** exponent.
    tau
        Greatest probability, in units of 1/K; at least 1.
    candidates
        Which actions are considered; the others get 0. None: all.

    Examples
    --------
    >>> import numpy as np
    >>> explore = CappedIGW(gamma_scale=1e6, gamma_exponent=0.0, tau=2.0)
    >>> explore.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), learned=1).round(4).tolist()
    [0.5, 0.5, 0.0, 0.0]
    """

    kind: ClassVar[str] = "capped_igw"

    def weigh(self, gamma: float, considered: Prediction) -> Float64:
        """Return the vector over the actions that are considered."""
        with np.errstate(over="ignore"):
            gaps = np.minimum(considered.mean.max() - considered.mean, GREATEST)
        return capped_inverse_gaps(gaps, np.sort(gaps), self.tau, gamma)

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse by the whole range; 0 where some are not considered."""
        return 0.0 if self.candidates is not None else self.tau / count / (self.tau + self.gamma(learned))


@compiled("float64[::1](float64[::1], float64[::1], float64, float64)")
def capped_inverse_gaps(gaps: Float64, ordered: Float64, tau: float, gamma: float) -> Float64:
    """Return CappedIGW's vector for gaps; ``ordered`` are the same in ascending order.

    beta lies between two neighbouring gaps, found by bisection. With the greater one of them, g, as the origin it is
    the normalisation of 1 / (lambda + gamma * (gap - g)), which Newton's steps solve to the last digit however great
    gamma is; beta itself would be lost in rounding.
    """
    count = len(gaps)
    share = tau / count
    first, last = 0, count - 1
    while first < last:
        middle = (first + last) // 2
        total = 0.0
        for gap in ordered:
            total += 1.0 / (1.0 + min(gamma * max(gap - ordered[middle], 0.0), GREATEST))
        if share * total >= 1.0:
            last = middle
        else:
            first = middle + 1
    origin = ordered[first]
    capped = 0
    while ordered[capped] < origin:
        capped += 1
    left = 1.0 - share * capped
    lambda_ = 1.0
    for _ in range(200):
        total = slope = 0.0
        for index in range(capped, count):
            inverse = 1.0 / (lambda_ + min(gamma * (ordered[index] - origin), GREATEST))
            total += inverse
            slope += inverse * inverse
        step = (share * total - left) / (share * slope)
        lambda_ += step
        if step <= 1e-15 * lambda_:
            break
    p = np.empty(count)
    for index in range(count):
        p[index] = share / (lambda_ + min(gamma * (gaps[index] - origin), GREATEST)) if gaps[index] >= origin else share
    p /= precise_sum(p)
    return p
