"""A least probability around another exploration."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from engine.compiled import compiled
from engine.config import ExplorationConfig, FloorConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.registry import make_exploration
from engine.exploration.wrapper import Wrapper
from engine.prediction import Prediction


class Floor(Wrapper):
    """No action gets less than epsilon / K, so that logs can be used to evaluate any policy.

    Parameters
    ----------
    inner
        The exploration around which it is put.
    epsilon
        K times the least probability.
    method
        ``mix``: (1 - epsilon) p + epsilon / K; every action gets something on top of what it had. ``project``: the
        nearest vector with that floor; actions above it pay alike for those below, and a vector that keeps it stays.

    Examples
    --------
    >>> import numpy as np
    >>> from engine.exploration.epsilon_greedy import EpsilonGreedy
    >>> prediction = Prediction(np.array([0.9, 0.2, 0.1]))
    >>> Floor(EpsilonGreedy(0.0), 0.3).pmf(prediction, learned=1).round(6).tolist()
    [0.8, 0.1, 0.1]
    """

    kind: ClassVar[str] = "floor"

    def __init__(self, inner: Exploration, epsilon: float = 0.05, method: Literal["mix", "project"] = "mix") -> None:
        super().__init__(inner)
        self.epsilon = epsilon
        self.method = method

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Floor:
        """Build it and what is in it from ``policy.exploration``."""
        assert isinstance(config, FloorConfig)
        return cls(make_exploration(config.inner, reward_range), config.epsilon, config.method)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inner vector with the floor."""
        p = self.inner.vector(prediction, learned)
        return mix(p, self.epsilon) if self.method == "mix" else project(p, self.epsilon, True)

    def minimum(self, count: int, learned: int) -> float:
        """Return epsilon / K, or more where the inner one promises some."""
        least = self.inner.minimum(count, learned)
        if self.method == "mix":
            return (1.0 - self.epsilon) * least + self.epsilon / count
        return self.epsilon / count


@compiled("float64[::1](float64[::1], float64)")
def mix(p: Float64, epsilon: float) -> Float64:
    """Return ``(1 - epsilon) p + epsilon / K``."""
    mixed = np.empty(len(p))
    for index in range(len(p)):
        mixed[index] = (1.0 - epsilon) * p[index] + epsilon / len(p)
    return mixed


@compiled("float64[::1](float64[::1], float64, boolean)")
def project(p: Float64, epsilon: float, include_zero: bool) -> Float64:
    """Return the vector nearest to ``p`` in which no eligible action gets less than epsilon / (eligible actions).

    Parameters
    ----------
    p
        A probability vector.
    epsilon
        From 0 (nothing changes) to 1 (uniform over the eligible).
    include_zero
        Whether actions of probability 0 are eligible; else they stay at 0.
    """
    eligible = 0
    for value in p:
        eligible += include_zero or value > 0.0
    least = epsilon / eligible
    ordered = -np.sort(-p)[:eligible]
    run = 0.0
    paid = 0.0
    for index in range(eligible):
        # What each of the greatest index + 1 would pay for the floor of the others.
        run += ordered[index]
        tau = ((eligible - index - 1) * least + run - 1.0) / (index + 1)
        if ordered[index] > tau + least or index == 0:
            paid = tau
    projected = np.zeros(len(p))
    for index in range(len(p)):
        if include_zero or p[index] > 0.0:
            projected[index] = max(p[index] - paid, least)
    return projected
