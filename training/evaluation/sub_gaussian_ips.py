"""Inverse propensity scoring with sub-Gaussian weights.

Metelli, Russo and Restelli, *Subgaussian and Differentiable Importance Sampling for Off-Policy Evaluation and
Learning*, NeurIPS 2021; the harmonic correction.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class SubGaussianIPS(Weighted):
    """Mean of ``u r`` with ``u = w / (1 - correction + correction w)``: a weight between w and 1.

    No weight is greater than ``1 / correction``, and the estimate is differentiable in the policy: what clipping does,
    without its edge.

    Parameters
    ----------
    correction
        Called lambda in the paper, in [0, 1]. 0 is ``IPS``, and with 1 every weight is 1 (but those of 0). The default
        is 0.01: no weight is greater than 100. Great weights are pulled down much: with 0.01, one of 100 counts as 50.
    """

    name: ClassVar[str] = "sg_ips"
    needs_reward_model: ClassVar[bool] = False

    def __init__(self, correction: float = 0.01) -> None:
        if not 0.0 <= correction <= 1.0:
            raise ValueError(f"correction must lie between 0 and 1, got {correction}")
        self.correction = correction

    def weight(self, w: Float64) -> Float64:
        """Return the corrected weight."""
        return harmonic(w, self.correction)


def harmonic(w: Float64, correction: float) -> Float64:
    """Return ``w / (1 - correction + correction w)``; a weight of 0 stays 0 whatever the correction.

    >>> harmonic(np.array([0.0, 1.0, 100.0]), 0.01).round(6).tolist()
    [0.0, 1.0, 50.251256]
    """
    return np.divide(w, 1.0 - correction + correction * w, out=np.zeros_like(w), where=w > 0.0)
