"""Epsilon-greedy, in a contextual bandit first studied by Langford and Zhang.

*The Epoch-Greedy Algorithm for Contextual Multi-armed Bandits*, NIPS 2007.
"""

from __future__ import annotations

from typing import ClassVar

from engine.config import EpsilonGreedyConfig, ExplorationConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.greedy import greedy
from engine.prediction import Prediction


class EpsilonGreedy(Exploration):
    """The best action with probability 1 - epsilon, any with epsilon; those that tie for the best share.

    Parameters
    ----------
    epsilon
        Share of uniform exploration.
    decay_after
        With t0 feedbacks, the share is ``epsilon * (t0 / (learned + t0)) ** (1/3)``, whose regret is of the order
        T^(2/3). None: it stays.

    Examples
    --------
    >>> import numpy as np
    >>> EpsilonGreedy(0.4).pmf(Prediction(np.array([0.1, 0.2, 0.9, 0.3])), learned=5).round(3).tolist()
    [0.1, 0.1, 0.7, 0.1]
    """

    kind: ClassVar[str] = "epsilon_greedy"

    def __init__(self, epsilon: float = 0.05, decay_after: int | None = None) -> None:
        self.epsilon = epsilon
        self.decay_after = decay_after

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> EpsilonGreedy:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, EpsilonGreedyConfig)
        return cls(config.epsilon, config.decay_after)

    def share(self, learned: int) -> float:
        """Return the share of uniform exploration after ``learned`` feedbacks."""
        t0 = self.decay_after
        return self.epsilon if t0 is None else self.epsilon * float((t0 / (learned + t0)) ** (1 / 3))

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the mixture."""
        return greedy(prediction.mean, self.share(learned))

    def minimum(self, count: int, learned: int) -> float:
        """Return epsilon / K."""
        return self.share(learned) / count
