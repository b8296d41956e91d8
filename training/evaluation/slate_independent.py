"""Independent-slot inverse propensity scoring: the item-position model.

Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, *Offline Evaluation of Ranking Policies with Click Models*,
KDD 2018.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.slates import LoggedSlates, self_normalised


class IndependentIPS:
    """Mean of ``sum_k w_k r_k``, with the weight of slot k alone.

    The weight is that of a slot's item given the items before it, which are taken as the logging policy has drawn them.
    So it estimates, slot by slot, what the target policy would earn if the slots before were the logging policy's. That
    is the target policy's own reward where items are many and slots few. Where they are not, an item that the target
    policy prefers counts in several slots: what is better looks still better, and what is worse still worse; the sign
    of a difference is kept more surely than its size. Its weights do not grow with the length of the list.

    >>> import numpy as np
    >>> lists = LoggedSlates(np.array([0, 2]), np.array([1.0, 1.0]), np.array([0.5, 0.5]), np.array([1.0, 0.25]))
    >>> IndependentIPS().contributions(lists).tolist()
    [2.5]
    """

    name: ClassVar[str] = "slate_independent"

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the weight of each slot by itself."""
        return lists.weights

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return ``sum_k w_ik r_ik``."""
        return lists.row_sums(lists.weights * lists.reward)


class IndependentSNIPS:
    """The same, normalised by the mean weight of each rank: a little bias for less variance."""

    name: ClassVar[str] = "slate_independent_sn"

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the weight of each slot by itself."""
        return lists.weights

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return the linearised terms; see ``self_normalised``."""
        return self_normalised(lists, lists.weights)
