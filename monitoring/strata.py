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
#: Reference observations below which a stratum is taken to be like all.
LEAST = 30
#: Observations of the pooled distribution that are added to those of each stratum.
_PRIOR = 10.0
#: A category that was expected less often than this stays as it is.
_IMPOSSIBLE = 1e-4


def phases(time_ms: IntArray, season: Season) -> IntArray:
    """Return the hour of the day or of the week (UTC, from Monday) of each time; 0 without a season.

    >>> phases(np.array([0, 3_600_000]), "day").tolist(), phases(np.array([0]), "week").tolist()
    ([0, 1], [72])
    """
    if season == "none":
        return np.zeros(len(time_ms), np.int64)
    hours = time_ms // _HOUR_MS
    return hours % 24 if season == "day" else (hours + _MONDAY) % 168


def expected(categories: IntArray, strata: IntArray, shape: tuple[int, int]) -> FloatArray:
    """Return the distribution of the categories in each stratum of a reference, shape (strata, categories).

    It is drawn towards the pooled one with the weight of 10 observations; a stratum with fewer than 30 has the pooled
    one itself, in which each category was seen half a time more than it was.
    """
    counts = np.zeros(shape)
    np.add.at(counts, (strata, categories), 1.0)
    pooled = counts.sum(axis=0) + 0.5
    pooled /= pooled.sum()
    totals = counts.sum(axis=1, keepdims=True)
    own = (counts + _PRIOR * pooled) / (totals + _PRIOR)
    table: FloatArray = np.where(totals >= LEAST, own, pooled)
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
