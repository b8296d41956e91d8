"""Do generations oscillate? A test of whether they return, after some number of generations, to where they were.

Vangara and Egg (*Contextual bandits in payment processing: non-uniform exploration and supervised learning*, OARS
2025) describe the effect; the test is ours. What has the period P returns after P generations: generations that are a
multiple of P apart are nearer to each other than those that are one more or one less apart. That is asked of two
distances, that of the rewards and that of the policies, for every period that the ledger is long enough for.

Where nothing oscillates, the order of the generations means nothing once a trend is taken out: each permutation of them
is as likely as what was seen. So the greatest of all contrasts, over both distances and all periods, is held against
its greatest values in random permutations (Westfall and Young, *Resampling-based multiple testing*, 1993): one level
for all of them together. A slow drift does not look like a return: a distance that grows ever more slowly with the time
between two generations has a contrast below 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Fewest generations that are judged, and generations between two looks.
LEAST = 9
EVERY = 3
#: The newest so many generations are judged.
MOST = 60
#: Fewest random permutations.
PERMUTATIONS = 1_999
#: Numbers that a trend is made of.
_TREND = 3


@dataclass(frozen=True, slots=True)
class Oscillation:
    """What the test says.

    Attributes
    ----------
    declared
        Whether the generations oscillate: ``p_value`` is at most ``level``.
    level
        Greatest probability of that where they do not.
    p_value
        Of both distances and all periods together; 1 where there are too few generations.
    p_reward, p_return
        Of the rewards alone and of the policies alone, each corrected for the other and for all periods; 1 where there
        is nothing to judge by.
    period
        Generations after which they return, of the greatest contrast; 0 where there are too few.
    amplitude
        By how much the best phase of that period earns more than the worst, in units of reward.
    amplitude_error
        Its standard error, with the fluctuation between generations of one phase in it.
    generations
        How many were judged.
    """

    declared: bool
    level: float
    p_value: float
    p_reward: float
    p_return: float
    period: int
    amplitude: float
    amplitude_error: float
    generations: int


def level_at(generations: int, level: float) -> float:
    """Return the level to be used with so many generations: 0 between two looks.

    The ledger is looked at again and again as it grows: after 9 generations, and after every 3 more. Look j gets
    level / (j (j + 1)), which is the level in sum over all looks there will ever be.

    >>> [round(level_at(n, 0.05), 5) for n in (8, 9, 10, 12, 15)]
    [0.0, 0.025, 0.0, 0.00833, 0.00417]
    """
    if generations < LEAST or (generations - LEAST) % EVERY:
        return 0.0
    look = (generations - LEAST) // EVERY + 1
    return level / (look * (look + 1))


def judge(
    reward: ArrayLike,
    standard_error: ArrayLike,
    distance: ArrayLike | None = None,
    *,
    level: float = 0.05,
    seed: int = 0,
) -> Oscillation:
    """Judge generations by what they earned and by how far their policies are apart.

    Parameters
    ----------
    reward : array_like, shape (G,)
        Mean reward of each generation while it acted, oldest first. Leave out those that explored before there was
        anything to learn from.
    standard_error : array_like, shape (G,)
        Of each mean. One that is known less well counts for less.
    distance : array_like, shape (G, G), optional
        Distance of any two policies, such as the mean total variation distance over a fixed set of contexts.
    level
        Greatest probability of declaring an oscillation where there is none.
    seed
        Of the permutations.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=16)
    >>> judge(0.85 + 0.002 * noise, np.full(16, 0.002)).declared
    False
    >>> swinging = judge(0.85 + 0.01 * (-1.0) ** np.arange(16) + 0.002 * noise, np.full(16, 0.002))
    >>> swinging.declared, swinging.period, round(swinging.amplitude, 2)
    (True, 2, 0.02)
    """
    y = np.asarray(reward, np.float64)[-MOST:]
    error = np.asarray(standard_error, np.float64)[-MOST:]
    apart = None if distance is None else np.asarray(distance, np.float64)[-MOST:, -MOST:]
    n = len(y)
    if n < LEAST or level <= 0.0:
        return Oscillation(False, level, 1.0, 1.0, 1.0, 0, math.nan, math.nan, n)
    if not (np.isfinite(y).all() and np.isfinite(error).all()):
        raise ValueError("reward and standard_error must be finite; leave out generations without feedback")
    residual, spread = detrended(y, error)
    z = residual / spread
    permutations = max(PERMUTATIONS, math.ceil(2.0 / level) - 1)
    rng = np.random.default_rng(seed)
    # The order that was seen is the first of them.
    order = np.concatenate([np.arange(n)[None], rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)])
    maker = _residual_maker(n, np.ones(n))
    by_reward = _standardised(_contrasts(_reward_lags(z[order] @ maker, n), n))
    judged = [by_reward]
    if apart is not None and np.isfinite(apart).all():
        judged.append(_standardised(_contrasts(_policy_lags(apart, order), n)))
    greatest = np.stack([each.max(axis=1) for each in judged])
    of_all = greatest.max(axis=0)
    p = [float(np.mean(of_all >= own[0])) for own in greatest]
    period = int(judged[int(greatest[:, 0].argmax())][0].argmax()) + 2
    amplitude, amplitude_error = _amplitude(residual, spread, period)
    return Oscillation(
        declared=min(p) <= level,
        level=level,
        p_value=min(p),
        p_reward=p[0],
        p_return=p[1] if len(p) > 1 else 1.0,
        period=period,
        amplitude=amplitude,
        amplitude_error=amplitude_error,
        generations=n,
    )


def detrended(values: ArrayLike, standard_error: ArrayLike) -> tuple[Float64, Float64]:
    """Take a trend out of a series of generations.

    Returns what is left, and the standard deviation of each of it: that of the mean, and the fluctuation between
    generations that is beyond it (DerSimonian and Laird, *Meta-analysis in clinical trials*, 1986).
    """
    y, error = np.asarray(values, np.float64), np.asarray(standard_error, np.float64)
    n = len(y)
    # Errors of exactly 0 would be infinite weights; no reward is known better than this.
    variance = np.maximum(error**2, 1e-24 + 1e-12 * float(np.var(y)))
    weight = 1.0 / variance
    residual = y @ _residual_maker(n, weight)
    freedom = n - _TREND
    excess = float(weight @ residual**2) - freedom
    tau2 = max(0.0, excess / float(weight.sum() - (weight**2).sum() / weight.sum()))
    total = variance + tau2
    return y @ _residual_maker(n, 1.0 / total), np.sqrt(total)


def _residual_maker(n: int, weight: Float64) -> Float64:
    """Return the matrix R with ``y @ R`` what the trend leaves of y: a level, a slope, and a logarithm.

    The logarithm is for policies that get better with what they learn, quickly at first.
    """
    time = np.arange(n, dtype=np.float64)
    design = np.stack([np.ones(n), time / n, np.log1p(time)], axis=1)
    weighted = design * weight[:, None]
    hat = design @ np.linalg.solve(design.T @ weighted, weighted.T)
    maker: Float64 = np.eye(n) - hat.T
    return maker


def _reward_lags(z: Float64, n: int) -> Float64:
    """Return the mean distance of rewards k apart for k from 1, shape (orders, n - 1).

    In units of their own spread: taking the trend out once more makes those in another order smaller.
    """
    z = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + 1e-300)
    return np.stack([((z[:, k:] - z[:, :-k]) ** 2).mean(axis=1) for k in range(1, n)], axis=1)


def _policy_lags(distance: Float64, order: Int64) -> Float64:
    """Return the mean distance of policies k apart for k from 1, shape (orders, n - 1)."""
    n = order.shape[1]
    return np.stack([distance[order[:, k:], order[:, :-k]].mean(axis=1) for k in range(1, n)], axis=1)


def _contrasts(lags: Float64, n: int) -> Float64:
    """Return for each period from 2 how much nearer its multiples are than their neighbours: (orders, periods)."""
    return np.stack([sum(_weighted(lags, n, period)) / _pairs(n, period) for period in range(2, n - 1)], axis=1)


def _weighted(lags: Float64, n: int, period: int) -> Iterator[Float64]:
    for lag in range(period, n - 1, period):
        # Lag k stands in column k - 1. Long lags have few pairs, and count for less.
        yield (n - lag) * (0.5 * (lags[:, lag - 2] + lags[:, lag]) - lags[:, lag - 1])


def _pairs(n: int, period: int) -> int:
    return sum(n - lag for lag in range(period, n - 1, period))


def _standardised(contrasts: Float64) -> Float64:
    """Put the contrasts of all periods on one scale, that of the permutations."""
    spread = contrasts.std(axis=0)
    found: Float64 = (contrasts - contrasts.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return found


def _amplitude(residual: Float64, spread: Float64, period: int) -> tuple[float, float]:
    """Return the distance of the best phase from the worst, and its standard error."""
    weight = 1.0 / spread**2
    phase = np.arange(len(residual)) % period
    total = np.bincount(phase, weight, period)
    mean = np.bincount(phase, weight * residual, period) / total
    within = residual - mean[phase]
    freedom = max(1, len(residual) - period)
    scale = float(weight @ within**2) / freedom
    high, low = int(mean.argmax()), int(mean.argmin())
    return float(mean[high] - mean[low]), math.sqrt(scale * (1.0 / total[high] + 1.0 / total[low]))
