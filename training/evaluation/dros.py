"""Doubly robust estimation with optimistic shrinkage.

Su, Dimakopoulou, Krishnamurthy and Dudik, *Doubly robust off-policy evaluation with shrinkage*, ICML 2020.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class DRos(Weighted):
    """``mean( sum_a pi(a) q_hat(a) + u (r - q_hat(chosen)) )`` with ``u = shrinkage w / (w^2 + shrinkage)``.

    The weight that is used is at most ``sqrt(shrinkage) / 2``, and small again where w is very great: there the model
    is believed instead of one row.

    Parameters
    ----------
    shrinkage
        Called lambda in the paper. 0 is ``DirectMethod``, infinity ``DoublyRobust``. With the default of 100 no weight
        is greater than 5, and one of 1 is used as 0.99.
    """

    name: ClassVar[str] = "dros"
    needs_reward_model: ClassVar[bool] = True

    def __init__(self, shrinkage: float = 100.0) -> None:
        if not shrinkage >= 0.0:
            raise ValueError(f"shrinkage must not be negative (infinity: nothing is shrunk), got {shrinkage}")
        self.shrinkage = shrinkage

    def weight(self, w: Float64) -> Float64:
        """Return the shrunk weight."""
        if self.shrinkage == 0.0:
            return np.zeros_like(w)
        # Divided by lambda above and below, so that an infinite one is the weight itself.
        return np.asarray(w / (w * w / self.shrinkage + 1.0))
