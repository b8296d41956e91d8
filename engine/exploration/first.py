"""Tau-first: explore, then commit."""

from __future__ import annotations

from typing import ClassVar

from engine.config import ExplorationConfig, FirstConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.greedy import greedy
from engine.prediction import Prediction


class First(Exploration):
    """Uniform until ``feedbacks`` are learned, the best action alone from then on; those that tie for it share.

    After that there is no support for the evaluation of other policies, and drift goes unnoticed on all actions but
    the best; wrap it in ``floor``.

    >>> import numpy as np
    >>> explore = First(feedbacks=10)
    >>> [explore.pmf(Prediction(np.array([0.3, 0.9])), n).tolist() for n in (9, 10)]
    [[0.5, 0.5], [0.0, 1.0]]
    """

    kind: ClassVar[str] = "first"

    def __init__(self, feedbacks: int = 1_000) -> None:
        self.feedbacks = feedbacks

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> First:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, FirstConfig)
        return cls(config.feedbacks)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return one of the two."""
        return greedy(prediction.mean, 1.0 if learned < self.feedbacks else 0.0)

    def minimum(self, count: int, learned: int) -> float:
        """Return 1/K at first, then 0."""
        return 1.0 / count if learned < self.feedbacks else 0.0
