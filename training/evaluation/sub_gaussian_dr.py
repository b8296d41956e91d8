"""Doubly robust estimation with sub-Gaussian weights.

Metelli, Russo and Restelli, *Subgaussian and Differentiable Importance Sampling for Off-Policy Evaluation and
Learning*, NeurIPS 2021; the harmonic correction.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.sub_gaussian_ips import harmonic
from training.evaluation.weighted import Weighted


class SubGaussianDR(Weighted):
    """``mean( sum_a pi(a) q_hat(a) + u (r - q_hat(chosen)) )`` with ``u = w / (1 - correction + correction w)``.

    Parameters
    ----------
    correction
        Called lambda in the paper, in [0, 1]. 0 is ``DoublyRobust``; see ``SubGaussianIPS`` for the default of 0.01.
    """

    name: ClassVar[str] = "sg_dr"
    needs_reward_model: ClassVar[bool] = True

    def __init__(self, correction: float = 0.01) -> None:
        if not 0.0 <= correction <= 1.0:
            raise ValueError(f"correction must lie between 0 and 1, got {correction}")
        self.correction = correction

    def weight(self, w: Float64) -> Float64:
        """Return the corrected weight."""
        return harmonic(w, self.correction)
