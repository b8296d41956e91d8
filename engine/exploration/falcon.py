"""FALCON and FALCON+: inverse gap weighting in epochs, for oracles that are fitted offline.

Simchi-Levi and Xu, *Bypassing the Monster: A Faster and Simpler Optimal Algorithm for Contextual Bandits under
Realizability*, Mathematics of Operations Research 2022.
"""

from __future__ import annotations

import math
from typing import ClassVar

from engine.config import ExplorationConfig, FalconConfig
from engine.exploration.base import GREATEST, Exploration, Float64, Range
from engine.exploration.igw import inverse_gaps
from engine.prediction import Prediction


class Falcon(Exploration):
    """SquareCB's vector; oracle and gamma stay as they are within an epoch, and epoch m ends after growth^m feedbacks.

    With n feedbacks that the oracle had learned from when the epoch began::

        gamma = constant * sqrt(K * n / complexity)

    Parameters
    ----------
    constant
        1/2 for FALCON+, 1/30 for FALCON.
    complexity
        Of the oracle's class, such that its excess risk after n feedbacks is about complexity / n: the number of
        coefficients of a linear oracle (FALCON+); log(\\|F\\| log(n) m / delta) of a finite class F (FALCON).
    growth
        How much longer each epoch is than the one before. The paper's is 2: as few fits as can be. One nearer to 1
        forgoes less of what could have been known, for more of them.

    Notes
    -----
    ``due`` keeps the learner from publishing within an epoch; a policy is immutable, so that the number of feedbacks
    that it has learned is n. Feedback comes in batches: an epoch may begin a little later than at growth^m, and n says
    so.

    Examples
    --------
    >>> import numpy as np
    >>> explore = Falcon(constant=0.5, complexity=10.0)
    >>> explore.gamma(count=4, learned=1_000)
    10.0
    >>> [n for n in range(1, 20) if explore.due(n - 1, n)]
    [1, 2, 4, 8, 16]
    """

    kind: ClassVar[str] = "falcon"

    def __init__(self, constant: float = 0.5, complexity: float = 10.0, growth: float = 2.0) -> None:
        self.constant = constant
        self.complexity = complexity
        self.growth = growth

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Falcon:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, FalconConfig)
        return cls(config.constant, config.complexity, config.growth)

    def gamma(self, count: int, learned: int) -> float:
        """Return gamma for ``count`` actions in an epoch that began with ``learned`` feedbacks."""
        return min(self.constant * math.sqrt(count * learned / self.complexity), GREATEST)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inverse-gap-weighted vector."""
        count = len(prediction.mean)
        return inverse_gaps(prediction.mean, count, self.gamma(count, learned))

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse by the whole range."""
        return 1.0 / (count + self.gamma(count, learned))

    def due(self, served: int, learned: int) -> bool:
        """Say whether an epoch has ended since: whether a power of ``growth`` lies in (served, learned]."""
        return self._epoch(learned) > self._epoch(served)

    def _epoch(self, learned: int) -> int:
        """Return how many powers of ``growth``, from its power 0 on, are no greater than ``learned``."""
        if learned < 1:
            return 0
        power = round(math.log(learned) / math.log(self.growth))
        # The logarithm is rounded, and decides nothing.
        while self.growth**power > learned:
            power -= 1
        while self.growth ** (power + 1) <= learned:
            power += 1
        return power + 1
