"""From an estimator and rows to an estimate with an interval; from two policies on the same rows to a difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.base import Estimator, LoggedRows
from training.evaluation.interval import Interval, IntervalMethod, Support
from training.evaluation.student import Student
from training.evaluation.support import Range, difference_support, support

_STUDENT = Student()


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
    interval : str
        How the bounds were made, a name in ``INTERVALS``.
    estimated : bool
        Whether the propensities were estimated and not logged: then no interval holds what it says, for none knows the
        error of the propensities.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    effective_sample_size: float
    max_weight: float
    mean_weight: float
    interval: str = Student.name
    estimated: bool = False


def estimate(
    estimator: Estimator,
    rows: LoggedRows,
    confidence: float = 0.95,
    method: IntervalMethod = _STUDENT,
    reward_range: Range | None = None,
) -> Estimate:
    """Apply an estimator.

    Parameters
    ----------
    estimator, rows
        What is applied to what.
    confidence
        Of the two-sided interval.
    method
        How its bounds are made.
    reward_range
        Of the decision point, for methods that need the range of the terms; ``None``: it is not known.
    """
    known = Support()
    if reward_range is not None:
        known = Support(*support(estimator, rows, reward_range), *reward_range)
    interval = method.interval(estimator.contributions(rows), (1.0 + confidence) / 2.0, known)
    return Estimate(
        interval.value,
        interval.standard_error,
        interval.low,
        interval.high,
        len(rows),
        *rows.weight_facts,
        method.name,
        rows.estimated,
    )


def difference(
    estimator: Estimator,
    candidate: LoggedRows,
    champion: LoggedRows,
    confidence: float,
    method: IntervalMethod = _STUDENT,
    reward_range: Range | None = None,
) -> Interval:
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
    method, reward_range
        As for ``estimate``.

    Raises
    ------
    ValueError
        The two are not made of the same rows.
    """
    if not (np.array_equal(candidate.chosen, champion.chosen) and np.array_equal(candidate.reward, champion.reward)):
        raise ValueError("candidate and champion must be evaluated on the same rows")
    known = Support()
    if reward_range is not None:
        width = reward_range[1] - reward_range[0]
        known = Support(*difference_support(estimator, candidate, champion, reward_range), -width, width)
    contributions = estimator.contributions(candidate) - estimator.contributions(champion)
    return method.interval(contributions, confidence, known)
