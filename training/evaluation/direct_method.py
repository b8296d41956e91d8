"""The direct method: believe the reward model.

Beygelzimer and Langford, *The Offset Tree for Learning with Partial Labels*, KDD 2009, section 3.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64, LoggedRows
from training.evaluation.weighted import Weighted


class DirectMethod(Weighted):
    """Mean of ``sum_a pi(a) q_hat(a)``: hardly any variance, and all the bias of the model.

    Its interval says how sure the mean over contexts is, given the model; the model's own error is not in it.
    """

    name: ClassVar[str] = "dm"
    needs_reward_model: ClassVar[bool] = True

    def weight(self, w: Float64) -> Float64:
        """Return 0: no residual counts."""
        return np.zeros_like(w)

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return ``sum_a pi_i(a) q_hat_i(a)``; see ``Estimator.contributions``."""
        return rows.direct
