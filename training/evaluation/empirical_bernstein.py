"""The empirical Bernstein bound.

Maurer and Pontil, *Empirical Bernstein Bounds and Sample Variance Penalization*, COLT 2009, theorem 4.
"""

from __future__ import annotations

import math
from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.interval import Interval, Support, checked, mean_and_error


class EmpiricalBernstein:
    """A guarantee for any number of rows and any distribution within the range, for one look.

    With range R = high - low and sample variance V, the mean of n values is off by more than::

        sqrt(2 V ln(2 / delta) / n) + 7 R ln(2 / delta) / (3 (n - 1))

    on one side with probability delta at most. The second term is the price of the range: with weights up to 100 it
    is large for thousands of rows. ``ClippedIPS`` has a range by construction, and for rewards that are not negative
    its lower bound is one of the policy's value.
    """

    name: ClassVar[str] = "empirical_bernstein"
    anytime: ClassVar[bool] = False

    def interval(self, values: Float64, confidence: float, support: Support) -> Interval:
        """Return the interval; see ``IntervalMethod.interval``. Needs both ends of the range."""
        log = math.log(2.0 / (1.0 - checked(confidence)))
        mean, error = mean_and_error(values)
        width = support.high - support.low
        if not (math.isfinite(width) and math.isfinite(error)):
            return Interval(mean, error, min(support.mean_low, mean), max(support.mean_high, mean))
        reach = error * math.sqrt(2.0 * log) + 7.0 * width * log / (3.0 * (len(values) - 1))
        # The mean's own range is no news, but it is true; a sample whose mean lies outside keeps its value inside.
        return Interval(
            mean, error, min(max(mean - reach, support.mean_low), mean), max(min(mean + reach, support.mean_high), mean)
        )
