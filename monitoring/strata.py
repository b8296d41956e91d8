"""What is expected is taken out of a stream before it is watched: the hour, the day, the policy's own prediction.

A stream whose categories follow a known pattern, such as more of one country in the evening, is no stationary stream,
and a change detector rightly says so every evening. So each observation is *transported*: with F the distribution of
its stratum (this hour of the day; this level of the predicted reward; this decision's own probabilities) and G a
distribution that is the same for all, a category c becomes the category of G at the level u, uniform on
[F(c-), F(c)). If the observations of each stratum follow its F, whatever the order and mixture of the strata, the
transported ones follow G: they are a stationary stream. If they do not, the transported ones move the same way.
(The randomised probability integral transform of Brockwell, Statistics & Probability Letters 77, 2007, and back.)
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from monitoring.detector import FloatArray, IntArray

Season = Literal["none", "day", "week"]

_HOUR_MS = 3_600_000
#: Phases of a season: hours of the day, hours of the week.
PHASES: dict[Season, int] = {"none": 1, "day": 24, "week": 168}
PERIOD_MS: dict[Season, int] = {season: count * _HOUR_MS for season, count in PHASES.items()} | {"none": 0}
#: 1970-01-01 was a Thursday: so many hours after a Monday.
_MONDAY = 72
#: Whole periods over which the pattern of a season is counted before anything is watched.
PERIODS = 2
#: A category that was expected less often than this stays as it is.
_IMPOSSIBLE = 1e-4


def inflation(season: Season) -> float:
    """Return by what the log threshold of a stream is multiplied for the pattern that was estimated.

    What is expected of a phase is a mean over ``PERIODS`` periods. Its error adds 1 / PERIODS to the variance of the
    difference between what a period shows and what was expected of it, and so to every log likelihood ratio.

    >>> inflation("none"), inflation("day")
    (1.0, 1.5)
    """
    return 1.0 if season == "none" else 1.0 + 1.0 / PERIODS


def phases(time_ms: IntArray, season: Season) -> IntArray:
    """Return the hour of the day or of the week (UTC, from Monday) of each time; 0 without a season.

    >>> phases(np.array([0, 3_600_000]), "day").tolist(), phases(np.array([0]), "week").tolist()
    ([0, 1], [72])
    """
    if season == "none":
        return np.zeros(len(time_ms), np.int64)
    hours = time_ms // _HOUR_MS
    return hours % 24 if season == "day" else (hours + _MONDAY) % 168


def expected(counts: IntArray) -> FloatArray:
    """Return the distribution of the categories in each stratum, from their counts, shape (strata, K).

    Each is drawn towards the pooled one, in which every category was seen half a time more than it was, with the weight
    of A observations: as many as the differences between the strata say, by Pearson's statistic, which for
    Dirichlet-multinomial counts of size n is (n + A) / (1 + A) times what equal strata give. Where the strata
    differ no more than by chance all have the pooled one.

    Examples
    --------
    >>> expected(np.array([[50, 50], [51, 49]])).round(2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    >>> expected(np.array([[900, 100], [100, 900]])).round(2).tolist()
    [[0.9, 0.1], [0.1, 0.9]]
    """
    pooled = counts.sum(axis=0) + 0.5
    pooled = pooled / pooled.sum()
    totals = counts.sum(axis=1, keepdims=True)
    full = totals[:, 0] > 0
    freedom = (int(full.sum()) - 1) * (counts.shape[1] - 1)
    if freedom <= 0:
        return np.tile(pooled, (len(counts), 1))
    pearson = float(((counts - totals * pooled) ** 2 / np.maximum(totals, 1) / pooled)[full].sum())
    inflation, size = pearson / freedom, float(totals[full].mean())
    if inflation <= 1.0:
        return np.tile(pooled, (len(counts), 1))
    prior = max(0.5, (size - inflation) / (inflation - 1.0))
    table: FloatArray = (counts + prior * pooled) / (totals + prior)
    return table


def transport(categories: IntArray, given: FloatArray, target: FloatArray, u: FloatArray) -> IntArray:
    """Return each category as one of the target distribution at the same, randomised, level.

    Parameters
    ----------
    categories
        Observations, shape (n,).
    given
        The distribution that each was expected to follow, shape (n, K).
    target
        The common distribution, shape (K,).
    u
        Uniform numbers, shape (n,).

    Examples
    --------
    >>> same = np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> transport(np.array([0, 1]), same, np.array([0.5, 0.5]), np.array([0.9, 0.0])).tolist()
    [0, 1]
    """
    rows = np.arange(len(categories))
    below = np.cumsum(given, axis=1)[rows, categories] - given[rows, categories]
    level = below + u * given[rows, categories]
    edges = np.cumsum(target)[:-1]
    # A level at an edge up to rounding belongs to the category that it came from where both distributions are equal.
    moved = np.searchsorted(edges, level + 1e-12, side="right").astype(np.int64)
    # What was not expected at all has no level to speak of, and is what it is.
    return np.where(given[rows, categories] < _IMPOSSIBLE, categories, moved)
