"""Reward interaction inverse propensity scoring (RIPS): what is earned in a slot depends on the slots before it.

McInerney, Brost, Chandar, Mehrotra and Carterette, *Counterfactual Evaluation of Slate Recommendations with Sequential
Reward Interactions*, KDD 2020.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.slates import LoggedSlates, self_normalised


class RewardInteractionIPS:
    """``sum_k (sum_i W_ik r_ik / sum_i W_ik)``, where W_ik is the product of the weights of the slots 0 to k.

    Consistent where users go from the first slot down, so that a slot's reward may depend on what stands above it.
    The product makes weights vary more with each slot: long lists need many of them, or policies that are alike.

    >>> import numpy as np
    >>> logged, target = np.array([0.5, 0.5]), np.array([0.75, 0.25])
    >>> lists = LoggedSlates(np.array([0, 1, 2]), np.array([1.0, 0.0]), logged, target, logged, target)
    >>> RewardInteractionIPS().contributions(lists).mean()
    np.float64(0.75)
    """

    name: ClassVar[str] = "slate_cascade"

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the product of the weights up to each slot."""
        return lists.cumulative_weights

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return the linearised terms; see ``self_normalised``."""
        return self_normalised(lists, lists.cumulative_weights)
