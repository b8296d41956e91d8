"""The bootstrap, bias-corrected and accelerated.

Efron, *Better Bootstrap Confidence Intervals*, Journal of the American Statistical Association 1987.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.interval import Interval, Support, checked, mean_and_error

_AT_ONCE = 4_000_000  # draws in memory


class Bootstrap:
    """BCa bounds: quantiles of resampled means, moved by the bias of the resamples and the skewness of the values.

    Weighted rewards are skewed to the right: a sample without its rare great terms has a mean that is too low *and* a
    spread that is too small. The bounds are therefore not symmetric. What the sample does not contain at all the
    bootstrap cannot know either. Self-normalised estimators are resampled by their linearisation. Needs no range; the
    time grows with rows times resamples.

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
        """Return the BCa interval; see ``IntervalMethod.interval``."""
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
        apart = values - mean
        acceleration = float((apart**3).sum() / (6.0 * (apart @ apart) ** 1.5))
        quantiles = []
        for z in (normal.inv_cdf(1.0 - confidence), normal.inv_cdf(confidence)):
            moved = bias + z
            quantiles.append(normal.cdf(bias + moved / max(1.0 - acceleration * moved, 1e-9)))
        low, high = np.quantile(means, quantiles)
        return Interval(mean, error, min(float(low), mean), max(float(high), mean))

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
