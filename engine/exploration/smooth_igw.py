"""SmoothIGW: inverse gap weighting for very many actions.

Zhu and Mineiro, *Contextual Bandits with Smooth Regret: Efficient Learning in Continuous Action Spaces*, ICML 2022.
"""

from __future__ import annotations

from typing import ClassVar

from engine.exploration.base import GREATEST, Float64
from engine.exploration.base_measure import BesideUniform
from engine.exploration.igw import inverse_gaps
from engine.prediction import Prediction


class SmoothIGW(BesideUniform):
    """Try an action at random, and take it the rather the smaller its gap; else take the best.

    With K candidates and the uniform base measure::

        p_a = (1 / K) / (1 + (gamma / tau) * gap_a)    for every action but the best, which gets the rest

    It competes with the best policy that spreads over 1/tau of the actions, not with the best action: exploration does
    not grow with K. With tau = K it is SquareCB.

    Parameters
    ----------
    gamma_scale, gamma_exponent
        gamma = scale * learned ** exponent.
    tau
        1/tau is the share of actions, at least 1.
    candidates
        Which actions are considered; the others get 0. None: all.

    Examples
    --------
    >>> import numpy as np
    >>> explore = SmoothIGW(gamma_scale=100.0, gamma_exponent=0.0, tau=4.0)
    >>> explore.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), learned=1).round(4).tolist()
    [0.846, 0.1111, 0.0294, 0.0135]
    """

    kind: ClassVar[str] = "smooth_igw"

    def weigh(self, gamma: float, considered: Prediction) -> Float64:
        """Return the vector over the actions that are considered."""
        count = len(considered.mean)
        return inverse_gaps(considered.mean, count, min(gamma / self.tau * count, GREATEST))

    def minimum(self, count: int, learned: int) -> float:
        """Return what an action gets that is worse by the whole range; 0 where some are not considered."""
        return 0.0 if self.candidates is not None else 1.0 / (count * (1.0 + self.gamma(learned) / self.tau))
