"""Inverse propensity scoring with clipped weights.

Ionides, *Truncated Importance Sampling*, Journal of Computational and Graphical Statistics 2008.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class ClippedIPS(Weighted):
    """Mean of ``min(w, clip) r``: less variance, and biased towards 0 by what is clipped.

    For rewards that are not negative it underestimates in expectation, whatever the clip: a lower bound of it is one of
    the policy's value. That holds for no difference of two policies.

    Parameters
    ----------
    clip
        The greatest weight that is used; infinity is ``IPS``. The default of 10 lets one row count for ten.
    """

    name: ClassVar[str] = "clipped_ips"
    needs_reward_model: ClassVar[bool] = False

    def __init__(self, clip: float = 10.0) -> None:
        if not clip > 0.0:
            raise ValueError(f"clip must be positive (infinity: nothing is clipped), got {clip}")
        self.clip = clip

    def weight(self, w: Float64) -> Float64:
        """Return ``min(w, clip)``."""
        return np.minimum(w, self.clip)
