"""FastCB: inverse gap weighting with first-order regret.

Foster and Krishnamurthy, *Efficient First-Order Contextual Bandits: Prediction, Allocation, and Triangular
Discrimination*, NeurIPS 2021.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.compiled import compiled
from engine.config import ExplorationConfig, FastCBConfig
from engine.exploration.base import GREATEST, Exploration, Float64, Range
from engine.exploration.greedy import greedy
from engine.exploration.igw import inverse_gaps
from engine.exploration.schedule import power
from engine.prediction import Prediction


class FastCB(Exploration):
    """SquareCB whose gamma grows as the best action's expected loss falls: where little can be lost, little is tried.

    With losses c_a = (high - f_a) / (high - low), clipped to [0, 1], and m = min(c)::

        p_a = m / (K m + gamma * (c_a - m))    for every action but the best, which gets the rest

    Actions that tie for the best share. The theory wants an oracle that is fitted with log loss. Unlike all other
    explorations here it depends on where the scores lie, not on their differences alone.

    Parameters
    ----------
    ceiling
        Greatest reward, in units of the range's width, as the scores are: high / (high - low).
    gamma_scale, gamma_exponent
        gamma = scale * learned ** exponent.
    least_loss
        m counts as no less than this, so that every action keeps some support. With 0 and an action that is expected
        to lose nothing, all others get 0.

    Examples
    --------
    >>> import numpy as np
    >>> explore = FastCB(ceiling=1.0, gamma_scale=10.0, gamma_exponent=0.0)
    >>> explore.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), learned=1).round(4).tolist()
    [0.7679, 0.1538, 0.0526, 0.0256]
    """

    kind: ClassVar[str] = "fastcb"

    def __init__(
        self,
        ceiling: float = 1.0,
        gamma_scale: float = 10.0,
        gamma_exponent: float = 0.5,
        least_loss: float = 1e-6,
    ) -> None:
        self.ceiling = ceiling
        self.gamma_scale = gamma_scale
        self.gamma_exponent = gamma_exponent
        self.least_loss = least_loss

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> FastCB:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, FastCBConfig)
        low, high = reward_range
        return cls(high / (high - low), config.gamma_scale, config.gamma_exponent, config.least_loss)

    def gamma(self, learned: int) -> float:
        """Return gamma after ``learned`` feedbacks; 0 (uniform) before the first."""
        return power(self.gamma_scale, self.gamma_exponent, learned)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inverse-gap-weighted vector."""
        return fast_inverse_gaps(prediction.mean, self.ceiling, self.gamma(learned), self.least_loss)

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse by the whole range beside one that is expected to lose nothing."""
        gamma = self.gamma(learned)
        return self.least_loss / (count * self.least_loss + gamma) if gamma else 1.0 / count


@compiled("float64[::1](float64[::1], float64, float64, float64)")
def fast_inverse_gaps(scores: Float64, ceiling: float, gamma: float, least_loss: float) -> Float64:
    """Return FastCB's vector for ``scores`` whose losses are ``ceiling - scores``, clipped to [0, 1]."""
    count = len(scores)
    clipped = np.empty(count)
    for index in range(count):
        clipped[index] = -min(max(ceiling - scores[index], 0.0), 1.0)
    m = max(-clipped.max(), least_loss)
    if m == 0.0 and gamma > 0.0:
        return greedy(clipped, 0.0)
    return inverse_gaps(clipped, count, min(gamma / m, GREATEST) if gamma > 0.0 else 0.0)
