"""Marginalised inverse propensity scoring, for large sets of actions.

Saito and Joachims, *Off-Policy Evaluation for Large Action Spaces via Embeddings*, ICML 2022, with an embedding that
is one category for each action.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from training.evaluation.base import Float64, Int64, LoggedRows
from training.evaluation.weighted import Weighted


class MIPS(Weighted):
    """Mean of ``w(e) r``, with the weight of the group e of the chosen action instead of the action's own.

    ``w(e) = sum_{a in e} pi(a) / sum_{a in e} p(a)`` over the actions of the row in that group. Unbiased if the action
    moves the reward through its group alone ("no direct effect"), and then of less variance than ``IPS``, the more so
    the more actions there are. Support is asked of the group only: an action that could not have been drawn is stood
    for by its neighbours. Where the action itself matters, the estimate is biased, and nothing in the data says so.

    The groups are ``LoggedRows.cluster``, such as those of ``training.evaluation.clusters``; without them every action
    is its own and this is ``IPS``. The paper lets the embedding be drawn at random given the action; here it is fixed.

    >>> import numpy as np
    >>> rows = LoggedRows(starts=np.array([0, 3]), chosen=np.array([0]), reward=np.array([1.0]),
    ...     logged=np.array([0.1, 0.4, 0.5]), target=np.array([0.6, 0.1, 0.3]), cluster=np.array([0, 0, 1]))
    >>> round(float(MIPS().contributions(rows)[0]), 3)  # 0.7 / 0.5, where the action's own weight is 6
    1.4
    """

    name: ClassVar[str] = "mips"
    needs_reward_model: ClassVar[bool] = False

    def weight(self, w: Float64) -> Float64:
        """Return w."""
        return w

    def drawn_weight(self, rows: LoggedRows) -> Float64:
        """Return the weight of each chosen action's group, shape (n,)."""
        return rows.weights if rows.cluster is None else self.every_weight(rows)[rows.chosen]

    def every_weight(self, rows: LoggedRows) -> Float64:
        """Return the weight of every offered action's group, shape (m,)."""
        if rows.cluster is None:
            return rows.every_weight
        target, logged = (_marginal(p, rows, rows.cluster) for p in (rows.target, rows.logged))
        return np.divide(target, logged, out=np.zeros_like(target), where=logged > 0.0)


def _marginal(probabilities: Float64, rows: LoggedRows, cluster: Int64) -> Float64:
    """Return the sum over the actions of the same row and group, for each offered action, shape (m,)."""
    row = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    groups = int(cluster.max()) + 1
    _, place = np.unique(row * groups + cluster, return_inverse=True)
    return np.asarray(np.bincount(place, weights=probabilities)[place])
