"""Doubly robust estimation.

Dudik, Langford and Li, *Doubly Robust Policy Evaluation and Learning*, ICML 2011, equation 1.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64, LoggedRows


class DoublyRobust:
    """The direct method, put right by the weighted residuals of the reward model.

    ``mean( sum_a pi(a) q_hat(a) + w (r - q_hat(chosen)) )``. Propensities are logged exactly, so it is unbiased
    whatever the model (given support), and the better the model, the smaller its variance. The gate judges by it.
    """

    name: ClassVar[str] = "dr"
    needs_reward_model: ClassVar[bool] = True

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return the terms of the mean; see ``Estimator.contributions``."""
        direct = rows.row_sums(rows.target * rows.model)
        return direct + rows.weights * (rows.reward - rows.model[rows.chosen])
