"""What confidence sequences have in common: bounds that hold at every time at once.

Each gives a lower bound for values that are bounded below alone, however great the greatest is: what a heavy tail of
weights needs. An upper bound is the lower bound of the values with their signs changed, and needs the other end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.interval import Interval, Support, checked, mean_and_error


class ConfidenceSequence(ABC):
    """An interval that may be looked at after every row: the truth is outside at *any* time with the stated error.

    The values must stand in the order of time, and what is bet on the next one depends on those before it alone.
    """

    name: ClassVar[str]
    anytime: ClassVar[bool] = True

    @abstractmethod
    def lower(self, x: Float64, alpha: float) -> float:
        """Return a lower bound of the mean of x, in [0, 1], that errs at any time with probability alpha at most.

        Parameters
        ----------
        x : ndarray of float64, shape (n,)
            Not negative, with the same mean in [0, 1] given what came before; not bounded above.
        alpha : float
        """

    def interval(self, values: Float64, confidence: float, support: Support) -> Interval:
        """Return the interval after the last row; see ``IntervalMethod.interval``."""
        alpha = 1.0 - checked(confidence)
        mean, error = mean_and_error(values)
        low = self._low(values, alpha, support)
        high = -self._low(-values, alpha, support.mirrored)
        # The bounds are of all times so far: after a stretch of luck the mean of all rows can lie beyond one of them.
        return Interval(mean, error, low, high)

    def _low(self, values: Float64, alpha: float, support: Support) -> float:
        scale = support.mean_high - support.low
        if not math.isfinite(scale):
            return support.mean_low
        if scale <= 0.0:
            return support.low
        # What lies below the range by a rounding is at its end.
        x = np.maximum((values - support.low) / scale, 0.0)
        return max(support.low + scale * self.lower(x, alpha), support.mean_low)


def predictable_moments(x: Float64) -> tuple[Float64, Float64]:
    """Return mean and variance of x as they are known before each value, shape (n,) each.

    Regularised by one made-up value: mean 1/2 and variance 1/4 before the first (Waudby-Smith and Ramdas, section
    3.2). The mean is at most 1, since the true one is; the sequences need that of it.

    >>> mean, variance = predictable_moments(np.array([1.0, 1.0, 0.0]))
    >>> mean.round(3).tolist(), variance.round(3).tolist()
    ([0.5, 0.75, 0.833], [0.25, 0.156, 0.113])
    """
    count = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.5], means[:-1]])
    return np.minimum(before, 1.0), np.concatenate([[0.25], variances[:-1]])


def bets(variance: Float64, alpha: float) -> Float64:
    """Return ``sqrt(2 ln(1 / alpha) / (v_t t ln(1 + t)))``, the predictable bets, shape (n,)."""
    t = np.arange(1, len(variance) + 1)
    return np.asarray(np.sqrt(2.0 * math.log(1.0 / alpha) / (np.maximum(variance, 1e-12) * t * np.log1p(t))))
