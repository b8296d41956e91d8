"""What the off-policy evaluation of lists works on, and what an estimator of it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from training.evaluation.base import Float64, Int64


@dataclass(frozen=True, eq=False)
class LoggedSlates:
    """Logged lists beside the probabilities that a target policy gives to the same slots.

    The slots of list i are the flat entries ``starts[i]:starts[i + 1]``; n lists, m slots in all.

    Parameters
    ----------
    starts : ndarray of int64, shape (n + 1,)
        Where each list begins; the last entry is m.
    reward : ndarray of float64, shape (m,)
        Of each slot, its tasks already weighted: a list's reward is their sum.
    logged : ndarray of float64, shape (m,)
        Logged propensity of each slot's item, given the items before it; positive.
    target : ndarray of float64, shape (m,)
        The target policy's probability of the same item in that slot, given the same items before it.
    logged_marginal, target_marginal : ndarray of float64, shape (m,)
        The probabilities, under both, of the item in that slot whatever stands before it; the logged one positive.

    Raises
    ------
    ValueError
        No lists, shapes that do not fit, numbers that are not finite, or a propensity that is not positive.

    Examples
    --------
    >>> logged, target = np.array([0.5, 0.5]), np.array([1.0, 0.25])
    >>> lists = LoggedSlates(np.array([0, 2]), np.array([1.0, 0.0]), logged, target, logged, target)
    >>> lists.marginal_weights.tolist(), lists.cumulative_weights.tolist()
    ([2.0, 0.5], [2.0, 1.0])
    """

    starts: Int64
    reward: Float64
    logged: Float64
    target: Float64
    logged_marginal: Float64
    target_marginal: Float64

    def __post_init__(self) -> None:
        n, m = len(self.starts) - 1, len(self.reward)
        if n < 1:
            raise ValueError("there is no list to evaluate on; widen the window")
        if self.starts[0] != 0 or self.starts[-1] != m or (np.diff(self.starts) < 1).any():
            raise ValueError(f"starts must rise from 0 to {m} in {n} steps of at least 1")
        for name in ("reward", "logged", "target", "logged_marginal", "target_marginal"):
            array = getattr(self, name)
            if array.shape != (m,):
                raise ValueError(f"{name} has shape {array.shape}; give one number for each of {m} slots")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}[{int(np.argmin(np.isfinite(array)))}] is not a finite number")
        for name in ("logged", "logged_marginal"):
            array = getattr(self, name)
            if (array <= 0.0).any():
                slot = int(np.argmax(array <= 0.0))
                raise ValueError(f"{name} propensity of slot {slot} is {array[slot]}, not positive")

    def __len__(self) -> int:
        """Return the number of lists."""
        return len(self.starts) - 1

    @cached_property
    def rank(self) -> Int64:
        """Number of each slot within its list, from 0, shape (m,)."""
        ranks: Int64 = np.arange(len(self.reward)) - np.repeat(self.starts[:-1], np.diff(self.starts))
        return ranks

    @cached_property
    def marginal_weights(self) -> Float64:
        """Importance weight of each slot's item, whatever stands before it, shape (m,)."""
        return self.target_marginal / self.logged_marginal

    @cached_property
    def cumulative_weights(self) -> Float64:
        """Importance weight of each slot and those before it in its list: their product, shape (m,)."""
        found = self.target / self.logged
        for rank in range(1, int(self.rank.max()) + 1):
            here = np.flatnonzero(self.rank == rank)
            found[here] *= found[here - 1]
        return found

    def row_sums(self, values: Float64) -> Float64:
        """Sum a per-slot array within each list, shape (n,)."""
        sums: Float64 = np.add.reduceat(values, self.starts[:-1])
        return sums


class SlateEstimator(Protocol):
    """One way to estimate the mean reward of a list that a target policy would have had. Stateless."""

    name: ClassVar[str]

    def weights(self, lists: LoggedSlates) -> Float64:
        """Return the weight that each slot's reward gets, shape (m,); its mean over a rank is 1 in expectation."""

    def contributions(self, lists: LoggedSlates) -> Float64:
        """Return one number for each list, shape (n,), whose mean is the estimate; see ``base.Estimator``."""


def self_normalised(lists: LoggedSlates, weights: Float64) -> Float64:
    """Return the contributions of ``sum_k (sum_i w_ik r_ik / sum_i w_ik)``, where k is a slot's rank.

    Each rank is normalised by itself, and linearised as in ``training.evaluation.snips``. A rank that not every list
    has counts as often as it occurs.
    """
    found = np.zeros(len(lists.reward))
    for rank in range(int(lists.rank.max()) + 1):
        here = np.flatnonzero(lists.rank == rank)
        w, r = weights[here], lists.reward[here]
        mean_weight = w.mean()
        if mean_weight > 0.0:
            value = (w * r).mean() / mean_weight
            found[here] = value + w * (r - value) / mean_weight
    return lists.row_sums(found)
