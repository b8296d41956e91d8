"""Learners of models that are fitted in batch: anew from the latest feedback, at fixed numbers of feedbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Oracle, batch
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.linear import LinearOracle
from engine.oracles.nested import flat, integers, parts_of
from engine.oracles.vocabulary import Vocabulary
from engine.oracles.window import LatestRows


class RefittedLearner:
    """Keeps the latest rows and fits a model to them now and then: a subclass says which.

    It is fitted every ``every`` feedbacks, or each time they have grown by a quarter if that is more, up to a quarter
    of the memory; in the process that learns, never in one that serves. Until the first fit it expects the low end of
    the range. When it is fitted depends on the number of feedbacks alone, so any split into batches gives the same.

    Parameters
    ----------
    columns
        The form of the rows.
    memory, every, max_actions
        See ``TreesConfig`` and ``SklearnConfig``.
    """

    kind: ClassVar[str]

    def __init__(self, columns: Columns, *, memory: int, every: int, max_actions: int) -> None:
        self.columns = columns
        self.memory = memory
        self.every = every
        self.learned = 0
        self._words = Vocabulary(max_actions)
        self._rows = LatestRows(columns.width)
        self._due = every
        theta = np.zeros((1, 1 + columns.width))
        theta[0, 0] = columns.low
        self._fitted: Oracle = LinearOracle(theta)
        self._known = 0

    def fit(self, X: Float32, codes: Int64, rewards: Float64, weights: Float64) -> Oracle:
        """Fit the model to rows; ``codes`` are those of ``vocabulary``."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... when it was fitted last."""
        return self._words.ids[: self._known]

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.columns.width

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        self._words.learn(actions)
        at = 0
        while at < len(actions):
            part = slice(at, min(at + self._due - self.learned, len(actions)))
            self._rows.add(rows[part], actions[part], targets[part], w[part])
            self.learned += part.stop - at
            at = part.stop
            if self.learned == self._due:
                self.refit()
            elif len(self._rows) >= 2 * self.memory:
                self._rows.keep(self.memory)

    def refit(self) -> None:
        """Fit the model to the latest rows now."""
        self._rows.keep(self.memory)
        kept = self._rows
        codes = self._words.learn(kept.actions())
        self._fitted = self.fit(kept.X, codes, kept.rewards, kept.weights)
        self._known = int(codes.max(initial=0))
        self._due = self.learned + max(self.every, len(kept) // 4)

    def oracle(self) -> Oracle:
        """Return the model that was fitted last; it never changes."""
        return self._fitted

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return Following(self)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        c = self.columns
        return {
            **flat([self._fitted]),
            **self._rows.arrays(),
            "vocabulary": self._words.array(),
            "counts": np.array([self.learned, self._due, self._known]),
            "columns": np.array([c.context, c.action, c.low, c.high]),
        }

    def _restore(self, arrays: Arrays) -> None:
        from engine.oracles import ORACLES

        self.learned, self._due, self._known = integers(arrays["counts"], 3)
        self._words = Vocabulary.from_array(self._words.limit, arrays["vocabulary"])
        if not self._known <= len(self._words.ids) or self._due <= self.learned:
            raise ValueError(f"counts {arrays['counts']} do not fit {len(self._words.ids)} actions")
        self._rows = LatestRows.from_arrays(arrays, self.columns.width)
        (self._fitted,) = parts_of(arrays, ORACLES)
