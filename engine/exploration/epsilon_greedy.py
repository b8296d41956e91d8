"""Epsilon-greedy: the best action, but for a share that is spread evenly.

Sutton and Barto, *Reinforcement Learning*, 2nd edition, 2018, section 2.2.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config import EpsilonGreedyConfig, ExplorationConfig
from engine.exploration.base import Exploration, Float64
from engine.prediction import Prediction


class EpsilonGreedy(Exploration):
    """Each of K actions gets epsilon / K, and the actions of greatest score share the rest equally.

    Parameters
    ----------
    epsilon
        0: the best action with certainty. Then the log says nothing about any other action.

    Examples
    --------
    >>> import numpy as np
    >>> EpsilonGreedy(0.4).pmf(Prediction(np.array([0.2, 0.3, 0.9, 0.1])), learned=1).round(3).tolist()
    [0.1, 0.1, 0.7, 0.1]
    """

    kind: ClassVar[str] = "epsilon_greedy"

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    @classmethod
    def from_config(cls, config: ExplorationConfig) -> EpsilonGreedy:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, EpsilonGreedyConfig)
        return cls(config.epsilon)

    def pmf(self, prediction: Prediction, learned: int) -> Float64:
        """Return epsilon / K for each action, and the rest for the best."""
        best = prediction.mean == prediction.mean.max()
        p: Float64 = np.full(len(best), self.epsilon / len(best))
        p[best] += (1.0 - self.epsilon) / np.count_nonzero(best)
        return p
