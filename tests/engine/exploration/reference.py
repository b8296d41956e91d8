"""The compiled cores once more, in NumPy as the formulas read: what they are held to."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Float64 = NDArray[np.float64]


def greedy(scores: Float64, epsilon: float) -> Float64:
    best = scores == scores.max()
    return np.asarray(epsilon / len(scores) + (1.0 - epsilon) * best / best.sum())


def softmax(scores: Float64, lambda_: float) -> Float64:
    weights = np.exp(-lambda_ * (scores.max() - scores))
    return np.asarray(weights / weights.sum())


def inverse_gaps(scores: Float64, mu: float, gamma: float) -> Float64:
    best = scores == scores.max()
    p = np.where(best, 0.0, 1.0 / (mu + gamma * (scores.max() - scores)))
    return np.where(best, (1.0 - p.sum()) / best.sum(), p)


def fast_inverse_gaps(scores: Float64, ceiling: float, gamma: float, least_loss: float) -> Float64:
    losses = np.clip(ceiling - scores, 0.0, 1.0)
    best = losses == losses.min()
    m = max(losses.min(), least_loss)
    if m == 0.0:
        return np.asarray(best / best.sum())
    p = np.where(best, 0.0, m / (len(losses) * m + gamma * (losses - losses.min())))
    return np.where(best, (1.0 - p.sum()) / best.sum(), p)


def by_bisection(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a falling function."""
    for _ in range(100):
        middle = 0.5 * (low + high)
        if falling(middle) > 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def normalised_inverse_gaps(scores: Float64, gamma: float) -> Float64:
    gaps = scores.max() - scores
    lambda_ = by_bisection(lambda x: (1.0 / (x + gamma * gaps)).sum() - 1.0, 1.0, float(len(gaps)))
    return np.asarray(1.0 / (lambda_ + gamma * gaps))


def capped_inverse_gaps(scores: Float64, tau: float, gamma: float) -> Float64:
    gaps = scores.max() - scores
    share = tau / len(gaps)

    def weigh(beta: float) -> Float64:
        distance = gaps - beta if beta < 0.0 else np.maximum(gaps - beta, 0.0)
        return np.asarray(share / (1.0 + gamma * distance))

    return weigh(-by_bisection(lambda minus: weigh(-minus).sum() - 1.0, -float(gaps.max()), tau / gamma))


def mix(p: Float64, epsilon: float) -> Float64:
    return (1.0 - epsilon) * p + epsilon / len(p)


def project(p: Float64, epsilon: float) -> Float64:
    least = epsilon / len(p)
    paid = by_bisection(lambda tau: np.maximum(p - tau, least).sum() - 1.0, -1.0, 1.0)
    return np.maximum(p - paid, least)


def cap(p: Float64, most: float) -> Float64:
    given = -by_bisection(lambda minus: np.minimum(p - minus, max(most, 1.0 / len(p))).sum() - 1.0, -1.0, 0.0)
    return np.minimum(p + given, max(most, 1.0 / len(p)))


def probabilities_of_the_best(mean: Float64, std: Float64) -> Float64:
    """By the trapezoidal rule, on a grid finer than any std."""
    z = np.arange((mean - 9.0 * std).max(), (mean + 9.0 * std).max(), std.min() / 25.0)
    t = (z[:, None] - mean) / std
    below = ndtr(t)
    density = np.exp(-0.5 * t * t) / np.sqrt(2.0 * np.pi) / std
    others = np.array([np.delete(below, a, axis=1).prod(axis=1) for a in range(len(mean))]).T
    return np.asarray((density * others).sum(axis=0) * (z[1] - z[0]))


def upper_bounds(mean: Float64, std: Float64, alpha: float) -> Float64:
    return mean + alpha * std


def precise_sum(values: Float64) -> float:
    return math.fsum(values)


def varying(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((rows != rows[0]).any(axis=0))


def squared_lengths(rows: NDArray[np.float32], weights: Float64) -> Float64:
    return np.asarray((weights[:, None] ** 2 * rows.astype(np.float64) ** 2).sum(axis=1))


def scaled(rows: NDArray[np.float32], weights: Float64, index: NDArray[np.int64]) -> Float64:
    return np.asarray(weights[index, None] * rows[index])


def taken(squared: Float64, least: float, share: float, size: int) -> list[int]:
    hashed = [(int(bits) * 0x9E3779B97F4A7C15 % 2**64) >> 32 for bits in squared.view(np.uint64)]
    wanted = [i for i, h in enumerate(hashed) if squared[i] >= least or h < int(2**32 * share)]
    return wanted[:size]
