"""From the terms of a mean to an interval: what it is, and what a way to it owes.

Every way to an interval is a file of its own, and stands in ``INTERVALS`` of ``training.evaluation.intervals``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from training.evaluation.base import Float64


@dataclass(frozen=True)
class Interval:
    """A mean with its two one-sided bounds.

    Attributes
    ----------
    value : float
        The mean.
    standard_error : float
        Of the mean; infinite for a single row, of whose spread nothing is known.
    low, high : float
        The truth lies below ``low`` (and above ``high``) in at most ``1 - confidence`` of all samples, each.
    """

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Support:
    """What is known of the terms of a mean before any of them is seen.

    Attributes
    ----------
    low, high : float
        No term lies outside; infinite where there is no such end. See ``training.evaluation.support``.
    mean_low, mean_high : float
        Nor does the true mean lie outside these: the range of the reward, or of the difference of two rewards.
    """

    low: float = -np.inf
    high: float = np.inf
    mean_low: float = -np.inf
    mean_high: float = np.inf

    @property
    def mirrored(self) -> Support:
        """That of the terms with their signs changed: an upper bound is the lower bound of these."""
        return Support(-self.high, -self.low, -self.mean_high, -self.mean_low)


class IntervalMethod(Protocol):
    """One way from terms to an interval. The contract suite ``tests/contract/test_intervals.py`` finds every one."""

    name: ClassVar[str]
    #: Whether it may be looked at after every row, and the first look that suits be taken.
    anytime: ClassVar[bool]

    def interval(self, values: Float64, confidence: float, support: Support) -> Interval:
        """Return the mean of independent values with its bounds.

        Parameters
        ----------
        values : ndarray of float64, shape (n,)
            In the order of time, which matters to methods that are ``anytime``.
        confidence : float
            Of each bound by itself, in (0.5, 1): 0.975 makes the usual two-sided interval of 95 %.
        support : Support
            What is known of the values. A method that needs an end and has none gives the mean's own range.
        """


def checked(confidence: float) -> float:
    """Return the confidence of one bound; raises ``ValueError`` where it is none."""
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence of one bound must lie between 0.5 and 1, got {confidence}")
    return confidence


def mean_and_error(values: Float64) -> tuple[float, float]:
    """Return the mean of independent values and its standard error, infinite for a single one."""
    n, mean = len(values), float(values.mean())
    if n == 1:
        return mean, float("inf")
    apart = values - mean
    return mean, math.sqrt(float(apart @ apart) / (n - 1) / n)
