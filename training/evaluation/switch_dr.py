"""Switching between the doubly robust and the direct estimate.

Wang, Agarwal and Dudik, *Optimal and Adaptive Off-policy Evaluation in Contextual Bandits*, ICML 2017.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class SwitchDR(Weighted):
    """``mean( sum_a pi(a) q_hat(a) + w 1{w <= threshold} (r - q_hat(chosen)) )``.

    Where the weight is greater than the threshold, the model alone is believed. The estimate jumps when a weight
    crosses the threshold: ``DRos`` is the smooth relative.

    Parameters
    ----------
    threshold
        The greatest weight that is used. 0 is ``DirectMethod``, infinity ``DoublyRobust``; the default is 10, as for
        ``ClippedIPS``.
    """

    name: ClassVar[str] = "switch_dr"
    needs_reward_model: ClassVar[bool] = True

    def __init__(self, threshold: float = 10.0) -> None:
        if not threshold >= 0.0:
            raise ValueError(f"threshold must not be negative (infinity: nothing is switched), got {threshold}")
        self.threshold = threshold

    def weight(self, w: Float64) -> Float64:
        """Return w up to the threshold, and 0 beyond it."""
        return np.where(w <= self.threshold, w, 0.0)
