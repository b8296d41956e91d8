"""SquareCB: inverse gap weighting.

Foster and Rakhlin, *Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles*, ICML 2020.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config import ExplorationConfig, SquareCBConfig
from engine.exploration.base import Exploration, Float64
from engine.prediction import Prediction

_GREATEST = float(np.finfo(np.float64).max)


class SquareCB(Exploration):
    """Probability of an action falls with the inverse of its gap to the best score.

    With K actions, gap_a = max(f) - f_a and gamma = ``gamma_scale`` * learned ** ``gamma_exponent``::

        p_a = 1 / (K + gamma * gap_a)    for every action but the best, which gets the rest

    so that the best action has at least 1/K and every action has support. Actions that tie for the best share
    the rest equally (the paper leaves ties open), which makes the vector independent of the order of actions.

    Parameters
    ----------
    gamma_scale
        Greater explores less.
    gamma_exponent
        1/2 for an oracle of logarithmic regret, smaller for slower ones; 0: constant gamma.

    Examples
    --------
    >>> import numpy as np
    >>> explore = SquareCB(gamma_scale=10.0, gamma_exponent=0.0)
    >>> explore.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), learned=1).round(4).tolist()
    [0.544, 0.2222, 0.1429, 0.0909]
    """

    kind: ClassVar[str] = "squarecb"

    def __init__(self, gamma_scale: float = 10.0, gamma_exponent: float = 0.5) -> None:
        self.gamma_scale = gamma_scale
        self.gamma_exponent = gamma_exponent

    @classmethod
    def from_config(cls, config: ExplorationConfig) -> SquareCB:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, SquareCBConfig)
        return cls(config.gamma_scale, config.gamma_exponent)

    def gamma(self, learned: int) -> float:
        """Return gamma after ``learned`` feedbacks; 0 (uniform) before the first."""
        return min(self.gamma_scale * learned**self.gamma_exponent, _GREATEST) if learned > 0 else 0.0

    def pmf(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inverse-gap-weighted vector."""
        scores = prediction.mean
        top = scores.max()
        best = scores == top
        with np.errstate(over="ignore"):
            # What is beyond float64 counts as its greatest number, so that the action keeps its support.
            gap = np.minimum(top - scores, _GREATEST)
            p: Float64 = 1.0 / (len(scores) + np.minimum(self.gamma(learned) * gap, _GREATEST))
        p[best] = 0.0
        p[best] = (1.0 - p.sum()) / np.count_nonzero(best)
        return p
