"""A greatest probability around another exploration."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.compiled import compiled
from engine.config import CapConfig, ExplorationConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.registry import make_exploration
from engine.exploration.wrapper import Wrapper
from engine.prediction import Prediction


class Cap(Wrapper):
    """No action gets more than ``most`` (or 1/K, where that is more): the nearest vector that keeps the cap.

    What is taken from the actions above it is given to those below in equal parts, also to those that had nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from engine.exploration.epsilon_greedy import EpsilonGreedy
    >>> prediction = Prediction(np.array([0.9, 0.2, 0.1]))
    >>> Cap(EpsilonGreedy(0.0), 0.8).pmf(prediction, learned=1).round(6).tolist()
    [0.8, 0.1, 0.1]
    """

    kind: ClassVar[str] = "cap"

    def __init__(self, inner: Exploration, most: float = 0.9) -> None:
        super().__init__(inner)
        self.most = most

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Cap:
        """Build it and what is in it from ``policy.exploration``."""
        assert isinstance(config, CapConfig)
        return cls(make_exploration(config.inner, reward_range), config.most)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inner vector with the cap."""
        return cap(self.inner.vector(prediction, learned), self.most)

    def minimum(self, count: int, learned: int) -> float:
        """Return what the inner one promises; a cap takes nothing from those below it."""
        return self.inner.minimum(count, learned)


@compiled("float64[::1](float64[::1], float64)")
def cap(p: Float64, most: float) -> Float64:
    """Return the vector nearest to ``p`` in which no action gets more than ``most``."""
    count = len(p)
    if most * count <= 1.0:
        return np.full(count, 1.0 / count)
    ordered = -np.sort(-p)
    below = ordered.sum()
    given = 0.0
    for capped in range(count):
        # What each of the others gets when so many of the greatest are capped.
        given = (1.0 - capped * most - below) / (count - capped)
        if ordered[capped] + given <= most:
            break
        below -= ordered[capped]
    if given <= 0.0:
        return p.copy()
    return np.minimum(p + given, most)
