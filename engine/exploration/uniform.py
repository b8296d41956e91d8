"""Uniform exploration: every action alike. Also the fallback where an oracle cannot be asked."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config import ExplorationConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.prediction import Prediction


class Uniform(Exploration):
    """Every action with probability 1/K.

    >>> import numpy as np
    >>> Uniform().pmf(Prediction(np.array([0.3, 0.9])), learned=100).tolist()
    [0.5, 0.5]
    """

    kind: ClassVar[str] = "uniform"

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Uniform:
        """Build it; there is nothing to configure."""
        return cls()

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return 1/K for each action."""
        return np.full(len(prediction.mean), 1.0 / len(prediction.mean))

    def minimum(self, count: int, learned: int) -> float:
        """Return 1/K."""
        return 1.0 / count
