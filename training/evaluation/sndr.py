"""Self-normalised doubly robust estimation.

Thomas and Brunskill, *Data-Efficient Off-Policy Policy Evaluation for Reinforcement Learning*, ICML 2016, section 5:
the weighted doubly robust estimator, for a horizon of one step.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64, LoggedRows


class SelfNormalizedDR:
    """``mean( sum_a pi(a) q_hat(a) ) + sum w (r - q_hat(chosen)) / sum w``.

    Notes
    -----
    As for ``SNIPS`` the contributions are the linearisation, and its standard error that of the delta method::

        sum_a pi(a) q_hat_i(a) + c + w_i (e_i - c) / mean(w),    e = r - q_hat(chosen),    c = sum w e / sum w

    The spread of ``sum_a pi(a) q_hat(a) + w e / mean(w)``, which Open Bandit Pipeline takes, treats the mean weight as
    known. Where no row has any weight the correction c is 0, and this is the direct method.
    """

    name: ClassVar[str] = "sndr"
    needs_reward_model: ClassVar[bool] = True

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return the linearised terms; see ``Estimator.contributions``."""
        w = rows.weights
        mean_weight = w.mean()
        if mean_weight == 0.0:
            return rows.direct
        correction = (w * rows.residual).mean() / mean_weight
        return np.asarray(rows.direct + (correction + w * (rows.residual - correction) / mean_weight))
