"""An intercept for each action around any oracle: a new action has a sensible score after one observation.

The shrinkage of James and Stein, *Estimation with quadratic loss*, Berkeley Symposium 1961, in the form of credibility
theory (Buehlmann, *Experience rating and credibility*, ASTIN Bulletin 1967): n / (n + k) of what was observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.config.oracle import InterceptsConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Learner, Oracle, UncertainOracle, batch
from engine.oracles.columns import Columns
from engine.oracles.nested import flat, integers, parts_of
from engine.oracles.vocabulary import Vocabulary


class InterceptOracle:
    """Expected reward is that of another oracle plus a number for each action.

    Parameters
    ----------
    base
        The other oracle.
    intercepts : ndarray of float64, shape (1 + n_actions,)
        Entry 0 belongs to actions without a code and is 0.
    known : int
        Codes that the other oracle knows; greater ones are 0 to it.
    """

    kind: ClassVar[str] = "intercepts"

    def __init__(self, base: Oracle, intercepts: Float64, known: int) -> None:
        self.base = base
        self.intercepts = intercepts
        self.known = known
        self.intercepts.flags.writeable = False

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        return self.base.predict(X, np.where(codes <= self.known, codes, 0)) + self.intercepts[codes]

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return the mean, and the standard deviation of the other oracle; raises ``TypeError`` where it has none."""
        if not isinstance(self.base, UncertainOracle):
            raise TypeError(f"oracle {self.base.kind!r} has no uncertainty; choose an exploration that needs none")
        mean, std = self.base.predict_std(X, np.where(codes <= self.known, codes, 0))
        return mean + self.intercepts[codes], std

    def arrays(self) -> Arrays:
        """Return the other oracle's and the intercepts."""
        return {
            **flat([self.base]),
            "intercepts": self.intercepts,
            "codes": np.array([self.known, len(self.intercepts) - 1]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> InterceptOracle:
        """Build it from its arrays; raises ``ValueError`` where they are damaged."""
        from engine.oracles import ORACLES

        intercepts = np.array(arrays["intercepts"], dtype=np.float64)
        known, actions = integers(arrays["codes"], 2)
        if intercepts.shape != (1 + actions,) or intercepts[0] != 0.0 or not np.isfinite(intercepts).all():
            raise ValueError(f"intercepts {intercepts.shape} must be {1 + actions} finite numbers, the first 0")
        return cls(parts_of(arrays, ORACLES)[0], intercepts, known)


class InterceptLearner:
    """Learns an oracle, and what each action has more (or less) than it says ::

        intercept_a = sum w (r - f(x)) / (sum w + shrinkage)

    with f(x) what the oracle said before it learned the row: constant time for a row, whatever the oracle. Meant for an
    oracle that all actions share and that learns row by row. Any split into batches gives the same.

    Parameters
    ----------
    base
        Learner of the oracle.
    shrinkage
        Weight of the assumption that an action has no intercept.
    max_actions
        How many actions get one.
    """

    kind: ClassVar[str] = "intercepts"

    def __init__(self, base: Learner, *, shrinkage: float = 10.0, max_actions: int = 4_096) -> None:
        self.base = base
        self.shrinkage = shrinkage
        self._words = Vocabulary(max_actions)
        self._sums = np.zeros((2, 1))
        self.learned = 0

    @classmethod
    def from_config(cls, config: InterceptsConfig, columns: Columns) -> InterceptLearner:
        """Build it from ``policy.oracle``."""
        from engine.oracles.learners import learner_of

        return cls(learner_of(config.base, columns), shrinkage=config.shrinkage, max_actions=config.max_actions)

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""
        return self._words.ids

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.base.width

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        codes = self._words.learn(actions)
        more = 1 + len(self._words.ids) - self._sums.shape[1]
        if more > 0:
            self._sums = np.concatenate([self._sums, np.zeros((2, more))], axis=1)
        view = self.base.live()
        for i, code in enumerate(codes):
            row = slice(i, i + 1)
            known = code if code <= len(self.base.vocabulary) else 0
            if code > 0:
                said = view.predict(rows[row], np.array([known]))
                self._sums[:, code] += w[i] * np.array([targets[i] - said[0], 1.0])
            self.base.partial_fit(rows[row], actions[row], targets[row], w[row])
        self.learned += len(actions)

    def _around(self, base: Oracle) -> InterceptOracle:
        return InterceptOracle(base, self._sums[0] / (self._sums[1] + self.shrinkage), len(self.base.vocabulary))

    def oracle(self) -> InterceptOracle:
        """Return what has been learned, as an oracle that no longer changes."""
        return self._around(self.base.oracle())

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        from engine.oracles.following import Following

        return Following(self, lambda: self._around(self.base.live()))

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        return {
            **flat([self.base]),
            "sums": self._sums.copy(),
            "vocabulary": self._words.array(),
            "counts": np.array([self._words.limit, self.learned]),
            "shrinkage": np.array([self.shrinkage]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> InterceptLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        from engine.oracles.learners import STORED

        limit, learned = integers(arrays["counts"], 2)
        shrinkage, sums = (np.array(arrays[name], dtype=np.float64) for name in ("shrinkage", "sums"))
        if shrinkage.shape != (1,):
            raise ValueError(f"shrinkage {shrinkage} must be one number")
        learner = cls(parts_of(arrays, STORED)[0], shrinkage=float(shrinkage[0]), max_actions=limit)
        learner._words = Vocabulary.from_array(limit, arrays["vocabulary"])
        if sums.shape != (2, 1 + len(learner._words.ids)) or not np.isfinite(sums).all():
            raise ValueError(f"sums {sums.shape} do not fit {len(learner._words.ids)} actions")
        learner._sums, learner.learned = sums, learned
        return learner
