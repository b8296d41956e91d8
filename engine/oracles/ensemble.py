"""An ensemble of oracles, and the learner that makes its members differ by an online bootstrap.

Oza and Russell, *Online Bagging and Boosting*, AISTATS 2001 (Poisson weights); Owen and Eckles, *Bootstrapping data
arrays of arbitrary order*, Annals of Applied Statistics 2012 (double or nothing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.config.oracle import EnsembleConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Learner, Oracle, batch
from engine.oracles.columns import Columns
from engine.oracles.nested import flat, integers, parts_of

#: P(Poisson(1) <= k): enough of it for 53 random bits.
_POISSON = np.cumsum([math.exp(-1.0) / math.factorial(k) for k in range(18)])


def bootstrap_weights(first: int, count: int, members: int, seed: int, *, poisson: bool) -> Float64:
    """Return the weights of rows ``first`` to ``first + count`` for each member, shape (members, count).

    A hash of row number, member and seed: the same however rows fall into batches, and after a restart. Mean and
    variance are 1.

    >>> bootstrap_weights(0, 6, 2, 0, poisson=False).tolist()
    [[0.0, 2.0, 2.0, 0.0, 2.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0, 0.0]]
    """
    rows = np.arange(first, first + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        h = rows * np.uint64(0x9E3779B97F4A7C15) + np.arange(1, members + 1, dtype=np.uint64)[:, None] * np.uint64(
            0xC2B2AE3D27D4EB4F
        )
        h += np.uint64(seed) * np.uint64(0x165667B19E3779F9)
        # The finaliser of splitmix64.
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    if not poisson:
        return np.asarray(2.0 * (h >> np.uint64(63)), dtype=np.float64)
    u = (h >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray(np.searchsorted(_POISSON, u, side="right"), dtype=np.float64)


class EnsembleOfOracles:
    """Expects what its members expect on average (or what the first does), and is as unsure as they differ.

    Parameters
    ----------
    members
        Oracles over the same rows and codes.
    lead : bool
        The expected reward is that of the first member; the others are there to explore.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(self, members: Sequence[Oracle], *, lead: bool = False) -> None:
        self.members = list(members)
        self.lead = lead

    def predict_members(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return the mean, and what each member expects, shape (n_members, n_rows)."""
        each = np.stack([member.predict(X, codes) for member in self.members])
        if self.lead:
            return each[0].copy(), each
        # Added one after the other: a row's mean does not depend on how many rows there are.
        mean = each[0].copy()
        for other in each[1:]:
            mean += other
        return mean / len(each), each

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        return self.members[0].predict(X, codes) if self.lead else self.predict_members(X, codes)[0]

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return the mean and the standard deviation over the members."""
        mean, each = self.predict_members(X, codes)
        centre = each.mean(axis=0)
        square = np.zeros(len(X))
        for member in each:
            square += (member - centre) ** 2
        return mean, np.sqrt(square / max(len(each) - 1, 1))

    def arrays(self) -> Arrays:
        """Return those of the members."""
        return {**flat(self.members), "lead": np.array([self.lead])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> EnsembleOfOracles:
        """Build it from the members' arrays; raises ``ValueError`` where they are damaged."""
        from engine.oracles import ORACLES

        lead = np.asarray(arrays["lead"])
        if lead.shape != (1,) or lead.dtype != np.bool_:
            raise ValueError(f"lead must be one truth value, not {lead}")
        return cls(parts_of(arrays, ORACLES), lead=bool(lead[0]))


class EnsembleLearner:
    """Learns an ensemble: each member learns each row with a weight of its own, whose mean is 1.

    All members see all rows, some with weight 0, so that all have the same codes.

    Parameters
    ----------
    members
        Learners of one kind that have learned nothing.
    seed
        Of the weights.
    poisson
        Poisson(1) weights; otherwise 0 or 2.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(self, members: Sequence[Learner], *, seed: int = 0, poisson: bool = True) -> None:
        self.members = list(members)
        self.seed = seed
        self.poisson = poisson
        self.learned = 0

    @classmethod
    def from_config(cls, config: EnsembleConfig, columns: Columns) -> EnsembleLearner:
        """Build it from ``policy.oracle``."""
        from engine.oracles.learners import learner_of

        members = [learner_of(config.base, columns) for _ in range(config.members)]
        return cls(members, seed=config.seed, poisson=config.bootstrap == "poisson")

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""
        return self.members[0].vocabulary

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.members[0].width

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        drawn = bootstrap_weights(self.learned, len(actions), len(self.members), self.seed, poisson=self.poisson)
        for member, mine in zip(self.members, drawn, strict=True):
            member.partial_fit(rows, actions, targets, w * mine)
        self.learned += len(actions)

    def oracle(self) -> EnsembleOfOracles:
        """Return what has been learned, as an oracle that no longer changes."""
        return EnsembleOfOracles([member.oracle() for member in self.members])

    def live(self) -> EnsembleOfOracles:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return EnsembleOfOracles([member.live() for member in self.members])

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        return {**flat(self.members), "bootstrap": np.array([self.seed, self.poisson, self.learned])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> EnsembleLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        from engine.oracles.learners import STORED

        seed, poisson, learned = integers(arrays["bootstrap"], 3)
        learner = cls(parts_of(arrays, STORED), seed=seed, poisson=bool(poisson))
        learner.learned = learned
        return learner
