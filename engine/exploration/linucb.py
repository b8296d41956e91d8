"""LinUCB: optimism under a linear oracle.

Li, Chu, Langford and Schapire, *A Contextual-Bandit Approach to Personalized News Article Recommendation*, WWW 2010.
"""

from __future__ import annotations

from typing import ClassVar

from engine.compiled import compiled
from engine.config import ExplorationConfig, LinUCBConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.greedy import greedy
from engine.prediction import Part, Prediction


class LinUCB(Exploration):
    """The action with the greatest mean + alpha * std, alone; those that tie for it share.

    It is deterministic apart from ties: its logs have no support for the evaluation of any other policy. Wrap it in
    ``floor`` where they are to be reused.

    Parameters
    ----------
    alpha
        Standard deviations above the mean; 0 is greedy.

    Examples
    --------
    >>> import numpy as np
    >>> prediction = Prediction(np.array([0.5, 0.4]), std=np.array([0.1, 0.3]))
    >>> LinUCB(alpha=1.0).pmf(prediction, learned=10).tolist()
    [0.0, 1.0]
    """

    kind: ClassVar[str] = "linucb"
    needs: frozenset[Part] = frozenset({"std"})

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> LinUCB:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, LinUCBConfig)
        return cls(config.alpha)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the vector."""
        assert prediction.std is not None
        return greedy(upper_bounds(prediction.mean, prediction.std, self.alpha), 0.0)


@compiled("float64[::1](float64[::1], float64[::1], float64)")
def upper_bounds(mean: Float64, std: Float64, alpha: float) -> Float64:
    """Return mean + alpha * std."""
    return mean + alpha * std
