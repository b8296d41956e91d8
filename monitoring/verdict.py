"""Does a change of the reward call for retraining? How drift is told from a policy that learns.

A policy that learns moves its own reward: up as it improves, down for a while when it explores more. It moves its
own *predictions* by as much. So what is judged is the residual, reward minus the score that the oracle gave the
chosen action when it decided. Learning and exploration leave its mean where it was; a world that no longer is what
the oracle learned pulls it down. A change calls for retraining iff

1. the mean reward fell,
2. the mean residual fell by at least ``min_effect`` and by at least half as much as the reward: the predictions
   account for less than half of the fall (they never account for all of it, for no oracle is unbiased on the
   actions that a changed exploration tries), and
3. the fall of the residual is no chance: its Welch statistic lies below -3.

With fewer than 10 scored decisions on either side, 3 cannot be tested; then the reward must have fallen by at least
20 % of its range instead. Without any, that alone decides.

All values here are shares of the reward range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

WELCH_LIMIT = -3.0
MIN_RESIDUALS = 10
LARGE_FALL = 0.2
UNEXPLAINED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sum and sum of squares of a sample; a longer sample minus its beginning is the rest.

    >>> (Moments(4, 6.0, 14.0) - Moments(2, 1.0, 1.0)).mean
    2.5
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> Moments:
        """Return the sample with one value more."""
        return Moments(self.count + 1, self.total + value, self.squares + value * value)

    def __sub__(self, beginning: Moments) -> Moments:
        """Return the sample without its beginning."""
        return Moments(self.count - beginning.count, self.total - beginning.total, self.squares - beginning.squares)

    @property
    def mean(self) -> float:
        """Mean; NaN of no value."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """Unbiased variance; NaN below two values."""
        if self.count < 2:
            return math.nan
        return max(0.0, self.squares - self.total * self.total / self.count) / (self.count - 1)


class Finding(Enum):
    """What a change of the mean reward means."""

    ROSE = "the policy has learned, or the world became easier"
    FALL_PREDICTED = "the policy's own predictions account for it: more exploration or harder contexts, not drift"
    FALL_UNCERTAIN = "what the policy's predictions leave unexplained may be chance"
    FALL_UNPREDICTED = "the policy did not predict it: the world has drifted"
    SMALL_FALL_UNSCORED = "too few scored decisions to compare it with predictions, and too small to act on alone"
    LARGE_FALL_UNSCORED = "too few scored decisions to test it against predictions, but large enough to act on"

    @property
    def calls_for_retraining(self) -> bool:
        """Whether a policy trained on the data since the change can be expected to help."""
        return self in (Finding.FALL_UNPREDICTED, Finding.LARGE_FALL_UNSCORED)


def welch(before: Moments, after: Moments) -> float:
    """Welch's statistic: difference of the means (after minus before) over its standard error.

    Infinite where both samples are constant and differ, 0 where they are constant and equal.
    """
    difference = after.mean - before.mean
    error = math.sqrt(before.variance / before.count + after.variance / after.count)
    if error == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / error


def accounted_for(rise: float, before: Moments, after: Moments) -> bool:
    """Say whether the predictions account for at least half of a rise of the reward, a share of its range."""
    scored = min(before.count, after.count)
    return scored >= MIN_RESIDUALS and after.mean - before.mean < UNEXPLAINED_SHARE * rise


def judge(reward_fall: float, before: Moments, after: Moments, min_effect: float) -> Finding:
    """Judge a change.

    Parameters
    ----------
    reward_fall
        Mean reward before minus mean reward after, as a share of the reward range.
    before, after
        The residuals (reward minus score of the chosen action) on either side.
    min_effect
        Least fall of the mean residual that counts.
    """
    if reward_fall <= 0.0:
        return Finding.ROSE
    scored = min(before.count, after.count)
    if scored and before.mean - after.mean < max(min_effect, UNEXPLAINED_SHARE * reward_fall):
        return Finding.FALL_PREDICTED
    if scored < MIN_RESIDUALS:
        return Finding.LARGE_FALL_UNSCORED if reward_fall >= LARGE_FALL else Finding.SMALL_FALL_UNSCORED
    return Finding.FALL_UNPREDICTED if welch(before, after) < WELCH_LIMIT else Finding.FALL_UNCERTAIN
