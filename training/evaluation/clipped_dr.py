"""Doubly robust estimation with clipped weights.

Su, Dimakopoulou, Krishnamurthy and Dudik, *Doubly robust off-policy evaluation with shrinkage*, ICML 2020: there it is
the *pessimistic* shrinkage.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class ClippedDoublyRobust(Weighted):
    """``mean( sum_a pi(a) q_hat(a) + min(w, clip) (r - q_hat(chosen)) )``.

    What is clipped of a weight is left to the model: the bias is that of the model on rows with great weights alone.

    Parameters
    ----------
    clip
        The greatest weight that is used; infinity is ``DoublyRobust``. The default is 10, as for ``ClippedIPS``.
    """

    name: ClassVar[str] = "clipped_dr"
    needs_reward_model: ClassVar[bool] = True

    def __init__(self, clip: float = 10.0) -> None:
        if not clip > 0.0:
            raise ValueError(f"clip must be positive (infinity: nothing is clipped), got {clip}")
        self.clip = clip

    def weight(self, w: Float64) -> Float64:
        """Return ``min(w, clip)``."""
        return np.minimum(w, self.clip)
