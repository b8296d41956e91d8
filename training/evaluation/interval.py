"""From contributions to an estimate with an interval.

The intervals are normal ones: they rest on the central limit theorem, and are too narrow where a few rows carry
most of the weight. The effective sample size stands beside them for that reason, and the gate asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from training.evaluation.base import Estimator, Float64, LoggedRows


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


def mean_interval(values: Float64, confidence: float) -> Interval:
    """Return the mean of independent values with normal bounds.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    confidence : float
        Of each bound by itself, in (0.5, 1): 0.975 makes the usual two-sided interval of 95 %.

    Examples
    --------
    >>> interval = mean_interval(np.array([0.0, 1.0, 0.0, 1.0]), confidence=0.975)
    >>> round(interval.value, 3), round(interval.low, 3), round(interval.high, 3)
    (0.5, -0.066, 1.066)
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence of one bound must lie between 0.5 and 1, got {confidence}")
    n = len(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / n**0.5 if n > 1 else float("inf")
    reach = NormalDist().inv_cdf(confidence) * error
    return Interval(mean, error, mean - reach, mean + reach)


@dataclass(frozen=True)
class Estimate:
    """What an estimator says of a policy, and how much it had to go by.

    Attributes
    ----------
    value : float
        Estimated mean reward.
    standard_error, low, high : float
        See ``Interval``; the bounds are those of the two-sided interval asked for.
    n : int
        Number of rows.
    effective_sample_size : float
        ``(sum w)^2 / sum w^2`` (Kish): of how many equally weighted rows the estimate is worth.
    max_weight, mean_weight : float
        Of the importance weights; the mean is 1 in expectation where the target policy has full support.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    effective_sample_size: float
    max_weight: float
    mean_weight: float


def estimate(estimator: Estimator, rows: LoggedRows, confidence: float = 0.95) -> Estimate:
    """Apply an estimator; ``confidence`` is that of the two-sided interval."""
    interval = mean_interval(estimator.contributions(rows), (1.0 + confidence) / 2.0)
    w = rows.weights
    return Estimate(
        interval.value,
        interval.standard_error,
        interval.low,
        interval.high,
        len(rows),
        effective_sample_size(w),
        float(w.max()),
        float(w.mean()),
    )


def difference(estimator: Estimator, candidate: LoggedRows, champion: LoggedRows, confidence: float) -> Interval:
    """Return by how much the candidate is better, with one-sided bounds.

    Both are estimated on the same rows and subtracted row by row: what the rows have in common cancels, and the
    interval is that of the difference, not of two separate estimates.

    Parameters
    ----------
    estimator
        The estimator.
    candidate, champion
        The same logged rows with the probabilities of one and of the other policy.
    confidence
        Of each bound by itself, in (0.5, 1).

    Raises
    ------
    ValueError
        The two are not made of the same rows.
    """
    if not (np.array_equal(candidate.chosen, champion.chosen) and np.array_equal(candidate.reward, champion.reward)):
        raise ValueError("candidate and champion must be evaluated on the same rows")
    return mean_interval(estimator.contributions(candidate) - estimator.contributions(champion), confidence)


def effective_sample_size(weights: Float64) -> float:
    """Return Kish's ``(sum w)^2 / sum w^2``; 0 where no row has weight.

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0
