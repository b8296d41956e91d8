"""Online Cover: a mixture over a few policies, with a least probability.

Agarwal, Hsu, Kale, Langford, Li and Schapire, *Taming the Monster: A Fast and Simple Algorithm for Contextual Bandits*,
ICML 2014 (section 4 and algorithm 5).
"""

from __future__ import annotations

import math
from typing import ClassVar

from engine.config import CoverConfig, ExplorationConfig
from engine.exploration.bag import votes
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.floor import project
from engine.prediction import Part, Prediction


class Cover(Exploration):
    """Each of N members gives 1/N to its best action; then no action gets less than the least probability.

    The members are to differ by construction: each is trained to like what those before it neglect. That is the
    learner's matter; with members of a bootstrap this is bagging with a falling floor.

    Parameters
    ----------
    epsilon
        The least probability is epsilon / K. None: min(1 / K, 1 / sqrt(K * learned)).
    uniform
        Whether actions without a vote get it too. Without it they get 0.

    Examples
    --------
    >>> import numpy as np
    >>> members = np.array([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    >>> explore = Cover(epsilon=0.3)
    >>> explore.pmf(Prediction(members.mean(axis=0), members=members), learned=10).round(6).tolist()
    [0.1, 0.8, 0.1]
    """

    kind: ClassVar[str] = "cover"
    needs: frozenset[Part] = frozenset({"members"})

    def __init__(self, epsilon: float | None = None, uniform: bool = True) -> None:
        self.epsilon = epsilon
        self.uniform = uniform

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Cover:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, CoverConfig)
        return cls(config.epsilon, config.uniform)

    def least(self, count: int, learned: int) -> float:
        """Return the least probability for ``count`` actions."""
        if self.epsilon is not None:
            return self.epsilon / count
        return min(1.0 / count, 1.0 / math.sqrt(count * learned)) if learned > 0 else 1.0 / count

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the mixture, no less than the least probability."""
        assert prediction.members is not None
        p = votes(prediction.members)
        return project(p, min(1.0, self.least(len(p), learned) * len(p)), self.uniform)

    def minimum(self, count: int, learned: int) -> float:
        """Return the least probability; 0 where actions without a vote get none."""
        return self.least(count, learned) if self.uniform else 0.0
