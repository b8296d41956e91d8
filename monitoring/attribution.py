"""What moved together with the reward over generations: class balance, reward, support, gamma or calibration.

A correlation over generations, with a trend taken out of both, is no cause: where two things alternate, each goes with
the other. The interval says how little that is: it counts generations that only repeat each other as fewer (Bartlett,
*Some aspects of the time-correlation problem*, Journal of the Royal Statistical Society 98, 1935).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from monitoring.oscillation import LEAST, Float64, detrended

#: Random permutations against which a correlation is held.
PERMUTATIONS = 1_999


@dataclass(frozen=True, slots=True)
class Attribution:
    """One thing that may have moved with the reward.

    Attributes
    ----------
    name
        What it is.
    correlation
        With the reward of the generation; its sign says in which direction. NaN where it never moved.
    low, high
        Its interval, of the confidence asked for over all things together.
    p_value
        Of no relation where the order of generations means nothing, over all things together.
    moved
        Whether ``p_value`` is at most one less the confidence.
    generations
        Of how many independent generations the interval is worth.
    """

    name: str
    correlation: float
    low: float
    high: float
    p_value: float
    moved: bool
    generations: float


def attribute(
    reward: ArrayLike, drivers: Mapping[str, ArrayLike], *, confidence: float = 0.95, seed: int = 0
) -> list[Attribution]:
    """Correlate the rewards of generations with what may drive them, the strongest first.

    Parameters
    ----------
    reward : array_like, shape (G,)
        Mean reward of each generation, oldest first.
    drivers : mapping of str to array_like, shape (G,)
        Values by name, for the same generations; NaN where one is not known (that driver is left out).
    confidence
        Of all intervals together (Bonferroni).
    seed
        Of the permutations.

    Examples
    --------
    >>> g = np.arange(12)
    >>> noise = np.random.default_rng(0).normal(size=(2, 12))
    >>> found = attribute(0.01 * noise[0], {"support": -0.02 * noise[0], "gamma": np.full(12, 100.0)})
    >>> found[0].name, round(found[0].correlation, 3), found[0].moved, math.isnan(found[1].correlation)
    ('support', -1.0, True, True)
    """
    y = np.asarray(reward, np.float64)
    known = {name: np.asarray(values, np.float64) for name, values in drivers.items()}
    known = {name: values for name, values in known.items() if np.isfinite(values).all()}
    if len(y) < LEAST:
        return []
    even = np.ones(len(y))
    left = detrended(y, even)[0]
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(y)), (PERMUTATIONS, 1)), axis=1)
    moving = {name: detrended(values, even)[0] for name, values in known.items() if np.ptp(values) > 0.0}
    share = (1.0 - confidence) / max(1, len(moving))
    # The greatest correlation of any of them, with the rewards in another order.
    greatest = np.max([np.abs(_correlations(left[orders], x)) for x in moving.values()], axis=0, initial=0.0)
    found = []
    for name in known:
        if name not in moving:
            found.append(Attribution(name, math.nan, math.nan, math.nan, 1.0, False, 0.0))
            continue
        r = float(_correlations(left[None], moving[name])[0])
        p = float((1 + np.count_nonzero(greatest >= abs(r))) / (1 + PERMUTATIONS))
        worth = _worth(left, moving[name])
        low, high = _interval(r, worth, share)
        found.append(Attribution(name, r, low, high, p, p <= 1.0 - confidence, worth))
    return sorted(found, key=lambda each: -abs(each.correlation) if each.correlation == each.correlation else 1.0)


def _correlations(rows: Float64, x: Float64) -> Float64:
    centred, other = rows - rows.mean(axis=1, keepdims=True), x - x.mean()
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(other)
    found: Float64 = centred @ other / np.where(norms > 0.0, norms, 1.0)
    return found


def _worth(one: Float64, other: Float64) -> float:
    """Return the number of independent generations: n (1 - ab) / (1 + ab), a and b the correlations one step apart."""
    product = _next(one) * _next(other)
    return len(one) * (1.0 - product) / (1.0 + product) if product > 0.0 else float(len(one))


def _next(x: Float64) -> float:
    x = x - x.mean()
    return float(np.clip(x[1:] @ x[:-1] / (x @ x), -0.99, 0.99))


def _interval(r: float, worth: float, share: float) -> tuple[float, float]:
    """Return Fisher's interval; everything where there are no more than three generations."""
    if worth <= 3.0:
        return -1.0, 1.0
    centre = math.atanh(max(-0.999999, min(0.999999, r)))
    reach = NormalDist().inv_cdf(1.0 - share / 2.0) / math.sqrt(worth - 3.0)
    return math.tanh(centre - reach), math.tanh(centre + reach)
