"""A synthetic bandit as plain arrays, with a known truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.evaluation import LoggedRows

Float64 = NDArray[np.float64]


def softmax(scores: Float64) -> Float64:
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


class Bandit:
    """Contexts are standard normal; rewards Bernoulli with logistic means; both policies soft-max of a linear score.

    ``q_hat`` is the true mean plus a wrong constant of ``model_error``: the doubly robust estimate must not care.
    With ``spread`` the policies differ more, and the weights have a heavier tail.
    """

    def __init__(self, *, actions: int = 4, model_error: float = 0.1, spread: float = 0.4) -> None:
        rng = np.random.default_rng(11)
        self.actions = actions
        self.model_error = model_error
        self._reward = rng.normal(scale=0.8, size=(5, actions))
        self._logging, self._target = rng.normal(scale=spread, size=(2, 5, actions))

    @cached_property
    def truth(self) -> float:
        X = np.random.default_rng(12).normal(size=(400_000, 5))
        return float((self._pi(X) * self._means(X)).sum(axis=1).mean())

    @cached_property
    def logging_truth(self) -> float:
        X = np.random.default_rng(12).normal(size=(400_000, 5))
        return float((softmax(X @ self._logging) * self._means(X)).sum(axis=1).mean())

    def sample(self, n: int, seed: int) -> LoggedRows:
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(n, 5))
        p, means = softmax(X @ self._logging), self._means(X)
        chosen = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=self.actions - 1)
        reward = (rng.random(n) < means[np.arange(n), chosen]).astype(np.float64)
        return LoggedRows(
            starts=np.arange(n + 1) * self.actions,
            chosen=np.arange(n) * self.actions + chosen,
            reward=reward,
            logged=p.ravel(),
            target=self._pi(X).ravel(),
            q_hat=(means + self.model_error).ravel(),
        )

    def _means(self, X: Float64) -> Float64:
        return np.asarray(1.0 / (1.0 + np.exp(-X @ self._reward)))

    def _pi(self, X: Float64) -> Float64:
        return softmax(X @ self._target)


def like_logging(rows: LoggedRows) -> LoggedRows:
    """Return the rows with the logging policy itself as target."""
    return replace(rows, target=rows.logged)
