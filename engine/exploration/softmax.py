"""Softmax (Boltzmann) exploration."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from engine.compiled import compiled
from engine.config import ExplorationConfig, SoftmaxConfig
from engine.exploration.base import GREATEST, Exploration, Float64, Range
from engine.exploration.schedule import power
from engine.exploration.summation import precise_sum
from engine.prediction import Prediction


class Softmax(Exploration):
    """Probabilities proportional to exp(lambda * f), lambda = ``lambda_scale`` * learned ** ``lambda_exponent``.

    Scores are in units of the reward's range: with lambda 10 an action that is worse by a tenth of it gets 1/e of the
    best one's probability. It knows nothing of how sure the oracle is.

    Examples
    --------
    >>> import numpy as np
    >>> explore = Softmax(lambda_scale=0.2)
    >>> explore.pmf(Prediction(np.array([1.0, 2.0, 3.0, 8.0])), learned=1).round(3).tolist()
    [0.129, 0.157, 0.192, 0.522]
    """

    kind: ClassVar[str] = "softmax"

    def __init__(self, lambda_scale: float = 10.0, lambda_exponent: float = 0.0) -> None:
        self.lambda_scale = lambda_scale
        self.lambda_exponent = lambda_exponent

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Softmax:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, SoftmaxConfig)
        return cls(config.lambda_scale, config.lambda_exponent)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the vector."""
        return softmax(prediction.mean, power(self.lambda_scale, self.lambda_exponent, learned))

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse than all others by the whole range."""
        least = math.exp(-power(self.lambda_scale, self.lambda_exponent, learned))
        return least / (count - 1 + least) if count > 1 else 1.0


@compiled("float64[::1](float64[::1], float64)")
def softmax(scores: Float64, lambda_: float) -> Float64:
    """Return probabilities proportional to ``exp(lambda_ * scores)``."""
    count = len(scores)
    top = scores.max()
    p = np.empty(count)
    for index in range(count):
        p[index] = np.exp(-lambda_ * min(top - scores[index], GREATEST))
    p /= precise_sum(p)
    return p
