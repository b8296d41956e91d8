"""What off-policy evaluation works on, and what an estimator is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LoggedRows:
    """Logged feedback beside the probabilities that a target policy gives to the same actions.

    A row is one feedback. The actions that were offered in row i are the flat entries ``starts[i]:starts[i + 1]``
    of the per-action arrays; n rows, m offered actions in all.

    Parameters
    ----------
    starts : ndarray of int64, shape (n + 1,)
        Where each row begins in the per-action arrays; the last entry is m.
    chosen : ndarray of int64, shape (n,)
        Flat index of the action that was drawn.
    reward : ndarray of float64, shape (n,)
        In units of the decision point's reward.
    logged : ndarray of float64, shape (m,)
        The logged probability vectors; positive at ``chosen``.
    target : ndarray of float64, shape (m,)
        The target policy's probability vectors for the same rows.
    q_hat : ndarray of float64, shape (m,), optional
        Expected reward of every offered action by a model that has not seen the row's reward. Estimators with
        ``needs_reward_model`` ask for it.
    cluster : ndarray of int64, shape (m,), optional
        Group of every offered action, from 0, for ``MIPS``: actions of one group are told apart by nothing that moves
        the reward. Without it each action is a group of its own.
    estimated : bool
        Whether ``logged`` was estimated (``training.evaluation.propensity``) and not logged. What is computed of such
        rows carries the flag, and the gate refuses it unless it is allowed to.

    Raises
    ------
    ValueError
        No rows, shapes that do not fit, a chosen action that could not have been drawn, or numbers that are not
        finite; the message names the array.

    Examples
    --------
    >>> rows = LoggedRows(starts=np.array([0, 2, 4]), chosen=np.array([0, 3]), reward=np.array([1.0, 0.0]),
    ...     logged=np.array([0.5, 0.5, 0.8, 0.2]), target=np.array([1.0, 0.0, 0.9, 0.1]))
    >>> rows.weights.tolist()
    [2.0, 0.5]
    """

    starts: Int64
    chosen: Int64
    reward: Float64
    logged: Float64
    target: Float64
    q_hat: Float64 | None = None
    cluster: Int64 | None = None
    estimated: bool = False

    def __post_init__(self) -> None:
        n, m = len(self.reward), len(self.logged)
        if n == 0:
            raise ValueError("reward is empty: there is nothing to evaluate on; widen the window")
        if len(self.starts) != n + 1 or self.starts[0] != 0 or self.starts[-1] != m or (np.diff(self.starts) < 1).any():
            raise ValueError(f"starts must rise from 0 to {m} in {n} steps of at least 1")
        given = {"target": self.target, "q_hat": self.q_hat, "cluster": self.cluster}
        per_action = {name: array for name, array in given.items() if array is not None}
        for name, array in per_action.items():
            if array.shape != (m,):
                raise ValueError(
                    f"{name} has shape {array.shape}, logged has ({m},); give one number per offered action"
                )
        for name, array in {"reward": self.reward, "logged": self.logged, **per_action}.items():
            # A sum is finite only if all of it is, and costs a fraction of the test; one that overflows is looked into.
            with np.errstate(over="ignore", invalid="ignore"):
                suspect = not np.isfinite(array.sum())
            if suspect and not np.isfinite(array).all():
                raise ValueError(f"{name}[{int(np.argmin(np.isfinite(array)))}] is not a finite number")
        if self.cluster is not None and self.cluster.min() < 0:
            raise ValueError(f"cluster has {int(self.cluster.min())}; number the groups of actions from 0")
        if (
            self.chosen.shape != (n,)
            or (self.chosen < self.starts[:-1]).any()
            or (self.chosen >= self.starts[1:]).any()
        ):
            raise ValueError("chosen must be a flat index within its own row, one for each row")
        if (self.propensity <= 0.0).any():
            row = int(np.argmax(self.propensity <= 0.0))
            raise ValueError(
                f"logged probability of the chosen action of row {row} is {self.propensity[row]}, not positive"
            )

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def propensity(self) -> Float64:
        """Logged probability of each row's chosen action, shape (n,)."""
        return self.logged[self.chosen]

    @cached_property
    def weights(self) -> Float64:
        """Importance weight of each row: target probability over propensity, shape (n,)."""
        return self.target[self.chosen] / self.propensity

    @cached_property
    def weight_facts(self) -> tuple[float, float, float]:
        """Effective sample size ``(sum w)^2 / sum w^2`` (Kish; 0 where no row has weight), greatest and mean weight."""
        w = self.weights
        return effective_sample_size(w), float(w.max()), float(w.sum()) / len(w)

    @cached_property
    def every_weight(self) -> Float64:
        """The weight that each row would have had, had this action been drawn, shape (m,); 0 where it could not be."""
        return np.divide(self.target, self.logged, out=np.zeros_like(self.target), where=self.logged > 0.0)

    @cached_property
    def model(self) -> Float64:
        """``q_hat``, for estimators that cannot do without; raises ``ValueError`` where there is none."""
        if self.q_hat is None:
            raise ValueError("this estimator needs q_hat; fit one with training.evaluation.reward_model.cross_fit")
        return self.q_hat

    @cached_property
    def direct(self) -> Float64:
        """What the reward model expects of the target policy in each row, ``sum_a pi(a) q_hat(a)``, shape (n,)."""
        actions = len(self.target) // len(self)
        if (np.diff(self.starts) == actions).all():  # as many actions in each row: no product is held in memory
            sums: Float64 = np.einsum("ij,ij->i", self.target.reshape(-1, actions), self.model.reshape(-1, actions))
            return sums
        return self.row_sums(self.target * self.model)

    @cached_property
    def residual(self) -> Float64:
        """By how much each row's reward exceeds what the model expected of the chosen action, shape (n,)."""
        return self.reward - self.model[self.chosen]

    def row_sums(self, values: Float64) -> Float64:
        """Sum a per-action array within each row, shape (n,)."""
        sums: Float64 = np.add.reduceat(values, self.starts[:-1])
        return sums


class Estimator(Protocol):
    """One way to estimate the mean reward that a target policy would have had.

    Stateless. The contract suite ``tests/contract/test_estimators.py`` finds every one in ``ESTIMATORS``.
    """

    name: ClassVar[str]
    needs_reward_model: ClassVar[bool]

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return one number for each row, shape (n,).

        Their mean is the estimate, and their standard deviation over sqrt(n) its standard error: an estimator
        that is not a mean of independent terms gives its linearisation, so that intervals and paired
        differences are made in one way for all of them.
        """


def effective_sample_size(weights: Float64) -> float:
    """Return Kish's ``(sum w)^2 / sum w^2``; 0 where no row has weight.

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0
