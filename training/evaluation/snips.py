"""Self-normalised inverse propensity scoring.

Swaminathan and Joachims, *The Self-Normalized Estimator for Counterfactual Learning*, NeurIPS 2015.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64, LoggedRows


class SNIPS:
    """``sum w r / sum w``: a little bias for less variance, and never outside the range of the rewards seen.

    Notes
    -----
    A ratio of means has no independent terms. The contributions are its linearisation (delta method; Owen, *Monte
    Carlo theory, methods and examples*, section 9.2)::

        v + w_i (r_i - v) / mean(w),    v = sum w r / sum w

    with mean v. The spread of ``w r / mean(w)``, which some libraries take instead, forgets that numerator and
    denominator rise together, and gives an interval that is too wide where rewards are far from 0.

    Where no row has any weight, the log says nothing of the target policy: the estimate is then 0, as that of
    ``IPS``, and its effective sample size of 0 says so.
    """

    name: ClassVar[str] = "snips"
    needs_reward_model: ClassVar[bool] = False

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return the linearised terms; see ``Estimator.contributions``."""
        w = rows.weights
        mean_weight = w.mean()
        if mean_weight == 0.0:
            return np.zeros(len(rows))
        value = (w * rows.reward).mean() / mean_weight
        return np.asarray(value + w * (rows.reward - value) / mean_weight)
