"""Does a divergence return to where it was, or does it run away? A process with a restoring force, fitted to it.

How far the world is from the reference is never 0: it fluctuates. The Ornstein-Uhlenbeck process
``dx = k (m - x) dt + s dW`` (Uhlenbeck and Ornstein, Physical Review 36, 1930) is the simplest with a restoring force:
``m`` is the level that it returns to, ``k`` how fast. Observed at equal steps it is the autoregression
``x' = m + phi (x - m) + e`` with ``phi = exp(-k)``. Least squares gives ``phi`` too small by about (1 + 3 phi) / n
(Kendall, Biometrika 41, 1954; Marriott and Pope, same volume), which is added back. Divergences lie in [0, 1], and so
do the level and its interval.

Whether there is a restoring force at all is the question of Dickey and Fuller (Journal of the American Statistical
Association 74, 1979): under a random walk their statistic is above -2.57 with probability 0.9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

#: Fewest values that are fitted.
LEAST = 20
#: 10 % point of the Dickey-Fuller statistic with a constant, for long series.
_DICKEY_FULLER = -2.57


class Course(Enum):
    """What becomes of a divergence."""

    UNKNOWN = "unknown"  #: too short a series
    STABLE = "stable"  #: it returns to its level
    RUNAWAY = "runaway"  #: no restoring force is seen, and it is higher than it was
    WANDERING = "wandering"  #: no restoring force is seen, and it is no higher than it was


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """A fitted process; values are NaN where the series is too short or constant.

    Attributes
    ----------
    course
        The verdict.
    rate
        Mean reversion k per step; infinite where each value is independent of the one before.
    level
        Equilibrium level m.
    low, high
        95 % interval of the level.
    spread
        Standard deviation of the values around the level in equilibrium.
    half_life
        Steps until half of a displacement is gone.
    steps
        Values fitted.
    last
        The newest value.
    """

    course: Course
    rate: float
    level: float
    low: float
    high: float
    spread: float
    half_life: float
    steps: int
    last: float


def fit(divergences: ArrayLike) -> Equilibrium:
    """Fit the process to a series of divergences in [0, 1], oldest first.

    Examples
    --------
    >>> noise = np.random.default_rng(0)
    >>> fit(0.2 + 0.02 * noise.standard_normal(80)).course.value
    'stable'
    >>> fit(np.linspace(0.1, 0.9, 80) + 0.01 * noise.standard_normal(80)).course.value
    'runaway'
    """
    x = np.asarray(divergences, np.float64)
    last = float(x[-1]) if len(x) else math.nan
    if len(x) < LEAST:
        nan = math.nan
        return Equilibrium(Course.UNKNOWN, nan, nan, nan, nan, nan, nan, len(x), last)
    before, after = x[:-1], x[1:]
    n = len(before)
    deviation = before - before.mean()
    variance = float(deviation @ deviation)
    if variance <= 1e-18:
        level = float(x.mean())
        return Equilibrium(Course.STABLE, math.inf, level, level, level, 0.0, 0.0, len(x), last)
    slope = float(deviation @ after) / variance
    residuals = after - after.mean() - slope * deviation
    noise = float(residuals @ residuals) / (n - 2)
    statistic = (slope - 1.0) / math.sqrt(noise / variance) if noise > 0 else -math.inf
    phi = min(slope + (1.0 + 3.0 * slope) / n, 0.999)
    # The mean of an AR(1) series is off its level by about s / ((1 - phi) sqrt(n)), more so for short ones.
    level = float(x.mean())
    error = math.sqrt(noise / len(x)) / (1.0 - phi)
    effective = max(2.0, n * (1.0 - abs(phi)) / (1.0 + abs(phi)))
    reach = _student(effective) * error
    rate = -math.log(phi) if phi > 0.0 else math.inf
    return Equilibrium(
        course=_course(x, statistic),
        rate=rate,
        level=min(1.0, max(0.0, level)),
        low=max(0.0, level - reach),
        high=min(1.0, level + reach),
        spread=math.sqrt(noise / (1.0 - phi * phi)),
        half_life=math.log(2.0) / rate,
        steps=len(x),
        last=last,
    )


def _student(freedom: float) -> float:
    """Return the 97.5 % point of Student's t: the expansion around the normal's (Abramowitz and Stegun 26.7.5)."""
    z, v = 1.959964, freedom
    terms = (
        z,
        (z**3 + z) / (4 * v),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3),
    )
    return math.fsum(terms)


def _course(x: np.ndarray[tuple[int], np.dtype[np.float64]], statistic: float) -> Course:
    if statistic < _DICKEY_FULLER:
        return Course.STABLE
    third = len(x) // 3
    return Course.RUNAWAY if x[-third:].mean() > x[:third].mean() else Course.WANDERING
