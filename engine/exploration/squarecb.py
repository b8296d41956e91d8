"""SquareCB: inverse gap weighting.

Foster and Rakhlin, *Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles*, ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from engine.config import ExplorationConfig, SquareCBConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.igw import inverse_gaps, inverse_gaps_each, normalised_inverse_gaps
from engine.exploration.plausible import plausible
from engine.exploration.schedule import power
from engine.prediction import Prediction


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
    form
        ``remainder``: as above. ``normalised``: p_a = 1 / (lambda + gamma * gap_a) for every action, lambda in [1, K]
        such that the sum is 1 (Foster and Rakhlin's lecture notes, with gamma for their 2 gamma); it explores more.
    eliminate
        Only actions stay in that may be the best one, as in RegCB: those whose score plus so many standard deviations
        reaches the greatest score less as many. The others get 0, and K counts those that stay. None: all stay.

    Examples
    --------
    >>> import numpy as np
    >>> explore = SquareCB(gamma_scale=10.0, gamma_exponent=0.0)
    >>> explore.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), learned=1).round(4).tolist()
    [0.544, 0.2222, 0.1429, 0.0909]
    """

    kind: ClassVar[str] = "squarecb"

    def __init__(
        self,
        gamma_scale: float = 10.0,
        gamma_exponent: float = 0.5,
        form: Literal["remainder", "normalised"] = "remainder",
        eliminate: float | None = None,
    ) -> None:
        self.gamma_scale = gamma_scale
        self.gamma_exponent = gamma_exponent
        self.form = form
        self.eliminate = eliminate
        if eliminate is not None:
            self.needs = frozenset({"std"})

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> SquareCB:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, SquareCBConfig)
        return cls(config.gamma_scale, config.gamma_exponent, config.form, config.eliminate)

    def gamma(self, learned: int) -> float:
        """Return gamma after ``learned`` feedbacks; 0 (uniform) before the first."""
        return power(self.gamma_scale, self.gamma_exponent, learned)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the inverse-gap-weighted vector."""
        if self.eliminate is None or prediction.std is None:
            return self._weigh(prediction.mean, learned)
        with np.errstate(over="ignore"):
            alive = plausible(prediction.mean, self.eliminate * prediction.std)
        p = np.zeros(len(alive))
        p[alive] = self._weigh(prediction.mean[alive], learned)
        return p

    def pmf_each(self, together: Prediction, ends: Sequence[int], learned: int) -> list[Float64]:
        """Return the vectors of several requests; those of the remainder's form by one compiled loop."""
        if self.form != "remainder" or self.eliminate is not None:
            return super().pmf_each(together, ends, learned)
        p = inverse_gaps_each(self._checked(together).mean, np.array(ends, dtype=np.int64), self.gamma(learned))
        return [p[begin:end] for begin, end in zip((0, *ends[:-1]), ends, strict=True)]

    def _weigh(self, scores: Float64, learned: int) -> Float64:
        if self.form == "normalised":
            return normalised_inverse_gaps(scores, 1.0, self.gamma(learned))
        return inverse_gaps(scores, len(scores), self.gamma(learned))

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse by the whole range; 0 where it may be eliminated."""
        # lambda of the normalised form is at most K.
        return 1.0 / (count + self.gamma(learned)) if self.eliminate is None else 0.0
