"""Student's t where terms are skewed and heavy-tailed.

Satterthwaite, *An Approximate Distribution of Estimates of Variance Components*, Biometrics Bulletin 1946, with the
variance of a sample variance from O'Neill, *Some Useful Moment Results in Sampling Problems*, The American Statistician
2014; Hall, *Inverting an Edgeworth Expansion*, Annals of Statistics 1983.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from scipy.special import stdtrit

from training.evaluation.base import Float64
from training.evaluation.interval import Interval, Support, checked, mean_and_error


def shape(values: Float64, mean: float) -> tuple[float, float]:
    """Return skewness and excess kurtosis of values that are not all equal.

    >>> [round(moment, 3) for moment in shape(np.array([0.0, 0.0, 0.0, 4.0]), mean=1.0)]
    [1.155, -0.667]
    """
    n = len(values)
    apart = values - mean
    apart /= math.sqrt(float(apart @ apart) / n)
    squares = apart * apart
    return float(apart @ squares) / n, float(squares @ squares) / n - 3.0


def quantile(confidence: float, n: int, kurtosis: float) -> float:
    """Return how many standard errors a mean of n terms may be off, symmetrically.

    The sample variance of terms with excess kurtosis k has the variance ``sigma^4 (k / n + 2 / (n - 1))``: that of a
    chi-square of ``2 n / (k + 2 n / (n - 1))`` degrees of freedom. Of normal terms these are n - 1, and no more are
    taken.

    Parameters
    ----------
    confidence
        Of one bound, in (0.5, 1).
    n
        Number of terms, at least 2.
    kurtosis
        Excess kurtosis of the terms.

    Examples
    --------
    >>> [round(quantile(0.975, 2_000, k), 2) for k in (0.0, 25.0, 500.0)]
    [1.96, 1.98, 2.31]
    """
    return float(stdtrit(2.0 * n / (max(kurtosis, 0.0) + 2.0 * n / (n - 1)), confidence))


class Student:
    """Mean plus and minus so many standard errors, more of them the fewer rows decide: for one look at many rows.

    Weighted rewards and residuals are mostly small and seldom great. Their sample variance is then known far worse than
    from normal terms, and the normal quantile, 1.96, is too small. Two things are made up for:

    - *Heavy tails.* The quantile is Student's, with degrees of freedom by the kurtosis of the terms (Satterthwaite;
      O'Neill).
    - *Skewness.* With skewness g the studentised mean has its quantiles at ``t - g (2 t^2 + 1) / (6 sqrt(n))`` (Hall),
      so one bound lies further out. It is moved; the other one, which the expansion moves inwards, is not: a sample
      that lacks its rare great terms has too small a skewness, or one of the wrong sign, just when it is also too sure
      of itself. On our logs with a heavy tail the correction of both bounds, and BCa too, covered less than no
      correction where the terms were those of ``dr`` and ``snips``.

    Both vanish as rows grow. It remains an approximation: terms so rare that the sample has none of them it cannot know
    of. Effective sample size and Hill index stand beside every estimate for that reason, and the gate asks for the
    first. Needs no range.

    Examples
    --------
    >>> found = Student().interval(np.array([0.0, 1.0, 0.0, 1.0]), 0.975, Support())
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.5, -0.419, 1.419)
    """

    name: ClassVar[str] = "student"
    anytime: ClassVar[bool] = False

    def interval(self, values: Float64, confidence: float, support: Support) -> Interval:
        """Return the interval; see ``IntervalMethod.interval``."""
        checked(confidence)
        mean, error = mean_and_error(values)
        if not 0.0 < error < np.inf:
            return Interval(mean, error, mean - error, mean + error)
        n = len(values)
        skewness, kurtosis = shape(values, mean)
        t = quantile(confidence, n, kurtosis)
        shift = skewness * (2.0 * t * t + 1.0) / (6.0 * math.sqrt(n))
        return Interval(mean, error, mean - error * (t + max(-shift, 0.0)), mean + error * (t + max(shift, 0.0)))
