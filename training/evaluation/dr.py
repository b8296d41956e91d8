"""Doubly robust estimation.

Dudik, Langford and Li, *Doubly Robust Policy Evaluation and Learning*, ICML 2011, equation 1.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class DoublyRobust(Weighted):
    """The direct method, put right by the weighted residuals of the reward model.

    ``mean( sum_a pi(a) q_hat(a) + w (r - q_hat(chosen)) )``. Propensities are logged exactly, so it is unbiased
    whatever the model (given support), and the better the model, the smaller its variance. The gate judges by it.
    """

    name: ClassVar[str] = "dr"
    needs_reward_model: ClassVar[bool] = True

    def weight(self, w: Float64) -> Float64:
        """Return w."""
        return w
