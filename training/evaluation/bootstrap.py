"""The bootstrap, bias-corrected, accelerated and expanded.

Efron, *Better Bootstrap Confidence Intervals*, Journal of the American Statistical Association 1987; Hesterberg, *What
Teachers Should Know About the Bootstrap*, The American Statistician 2015: expanded percentiles.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.interval import Interval, Support, checked, mean_and_error
from training.evaluation.student import quantile, shape

_AT_ONCE = 4_000_000  # draws in memory


class Bootstrap:
    """BCa bounds: quantiles of resampled means, moved by the bias of the resamples and the skewness of the values.

    Weighted rewards are skewed to the right: a sample without its rare great terms has a mean that is too low *and* a
    spread that is too small. The bounds are therefore not symmetric.

    What the sample does not contain at all the bootstrap cannot know either, and BCa by itself covered less than it
    stated. So the quantiles are taken further out, at the levels that Student's quantile has in place of the normal one
    (Hesterberg), with degrees of freedom by the kurtosis of the values as in ``Student``. And no bound lies nearer to
    the mean than this quantile times the standard error: resamples draw it nearer most wrongly where the sample lacks
    its rare terms.

    Self-normalised estimators are resampled by their linearisation. Needs no range; the time grows with rows times
    resamples.

    Parameters
    ----------
    resamples
        How many; the quantile of a bound at confidence c rests on about ``(1 - c) resamples`` of them.
    seed
        Of the resamples: equal values have equal bounds.
    """

    name: ClassVar[str] = "bootstrap"
    anytime: ClassVar[bool] = False

    def __init__(self, resamples: int = 2_000, seed: int = 0) -> None:
        if resamples < 100:
            raise ValueError(f"resamples must be at least 100, got {resamples}")
        self.resamples = resamples
        self.seed = seed

    def interval(self, values: Float64, confidence: float, support: Support) -> Interval:
        """Return the interval; see ``IntervalMethod.interval``."""
        checked(confidence)
        mean, error = mean_and_error(values)
        if not 0.0 < error < np.inf:
            return Interval(mean, error, mean - error, mean + error)
        means = self._means(values)
        normal = NormalDist()
        # Half of those that equal the mean, but for rounding, count as below it: values of few kinds have many.
        equal = np.abs(means - mean) <= 1e-9 * error
        below = float(((means < mean) & ~equal).mean() + equal.mean() / 2)
        bias = normal.inv_cdf(min(max(below, 1.0 / self.resamples), 1.0 - 1.0 / self.resamples))
        skewness, kurtosis = shape(values, mean)
        acceleration = skewness / (6.0 * math.sqrt(len(values)))
        t = quantile(confidence, len(values), kurtosis)

        def moved(z: float) -> float:
            return bias + (bias + z) / max(1.0 - acceleration * (bias + z), 1e-9)

        low, high = np.quantile(means, [normal.cdf(moved(-t)), normal.cdf(moved(t))])
        return Interval(mean, error, min(float(low), mean - t * error), max(float(high), mean + t * error))

    def _means(self, values: Float64) -> Float64:
        """Return the mean of each resample."""
        rng = np.random.default_rng(self.seed)
        n = len(values)
        each = max(1, _AT_ONCE // n)
        parts = [
            values[rng.integers(n, size=(min(each, self.resamples - begin), n))].mean(axis=1)
            for begin in range(0, self.resamples, each)
        ]
        return np.concatenate(parts)
