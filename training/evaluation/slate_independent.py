"""Independent-slot inverse propensity scoring: the item-position model.

Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, *Offline Evaluation of Ranking Policies with Click Models*,
KDD 2018.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.slates import LoggedSlates, self_normalised


class IndependentIPS:
    """Mean of ``sum_k w_k r_k``, w_k the ratio of the probabilities that slot k has its item, whatever stands above.

    Unbiased where a slot's reward depends on its own item and its rank alone, so that the reward of a list is a sum
    over them. The weights do not grow with the length of the list. The probabilities are averages over all beginnings
    of a list: see ``engine.slates.marginals``, which says where they are exact.

    >>> import numpy as np
    >>> logged, target = np.array([0.5, 0.5]), np.array([1.0, 0.25])
    >>> lists = LoggedSlates(np.array([0, 2]), np.array([1.0, 1.0]), logged, target, logged, target)
    >>> IndependentIPS().contributions(lists).tolist()
    [2.5]
    """

    name: ClassVar[str] = "slate_independent"

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the weight of each slot's item in its rank."""
        return lists.marginal_weights

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return ``sum_k w_ik r_ik``."""
        return lists.row_sums(lists.marginal_weights * lists.reward)


class IndependentSNIPS:
    """The same, normalised by the mean weight of each rank: consistent, and of less variance."""

    name: ClassVar[str] = "slate_independent_sn"

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the weight of each slot's item in its rank."""
        return lists.marginal_weights

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return the linearised terms; see ``self_normalised``."""
        return self_normalised(lists, lists.marginal_weights)
