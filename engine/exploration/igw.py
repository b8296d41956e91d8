"""Inverse gap weighting, the core of a family: probability falls with the inverse of the gap to the best score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.exploration.base import GREATEST, Float64
from engine.exploration.summation import precise_sum


@compiled("float64[::1](float64[::1], float64, float64)")
def inverse_gaps(scores: Float64, mu: float, gamma: float) -> Float64:
    """Return 1 / (mu + gamma * gap) for every action but the best; those that tie for it share the rest.

    ``mu`` is at least the number of actions, so that something is left. What is beyond float64 counts as its greatest
    number: the action keeps its support.
    """
    count = len(scores)
    top = scores.max()
    p = np.zeros(count)
    ties = 0
    for index in range(count):
        gap = top - scores[index]
        if gap == 0.0:
            ties += 1
        else:
            p[index] = 1.0 / (mu + min(gamma * min(gap, GREATEST), GREATEST))
    rest = 1.0 - precise_sum(p)
    for index in range(count):
        if scores[index] == top:
            p[index] = rest / ties
    return p


@compiled("float64[::1](float64[::1], int64[::1], float64)")
def inverse_gaps_each(scores: Float64, ends: NDArray[np.int64], gamma: float) -> Float64:
    """Return the vectors of several requests, one after the other; ``ends``: where the scores of each end."""
    p = np.empty(len(scores))
    begin = 0
    for end in ends:
        p[begin:end] = inverse_gaps(scores[begin:end], end - begin, gamma)
        begin = end
    return p


@compiled("float64[::1](float64[::1], float64, float64)")
def normalised_inverse_gaps(scores: Float64, share: float, gamma: float) -> Float64:
    """Return share / (lambda + gamma * gap) with the lambda that makes the sum 1.

    The sum is convex in lambda and falls, so that Newton's steps from below reach it without passing it. It takes
    share * K >= 1 and lambda >= share * (ties for the best).
    """
    count = len(scores)
    top = scores.max()
    weighted = np.empty(count)
    ties = 0
    for index in range(count):
        weighted[index] = min(gamma * min(top - scores[index], GREATEST), GREATEST)
        ties += weighted[index] == 0.0
    lambda_ = share * ties
    for _ in range(200):
        total = slope = 0.0
        for index in range(count):
            inverse = 1.0 / (lambda_ + weighted[index])
            total += inverse
            slope += inverse * inverse
        step = (share * total - 1.0) / (share * slope)
        lambda_ += step
        if step <= 1e-15 * lambda_:
            break
    p = share / (lambda_ + weighted)
    p /= precise_sum(p)
    return p
