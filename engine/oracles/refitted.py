"""Learners of models that are fitted in batch: anew from the latest feedback, at fixed numbers of feedbacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from engine.features import Float32
from engine.oracles.background import Rebuilt
from engine.oracles.base import Arrays, Float64, Int64, Oracle, batch
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.linear import LinearOracle
from engine.oracles.nested import flat, integers, parts_of
from engine.oracles.vocabulary import Vocabulary
from engine.oracles.window import LatestRows


class RefittedLearner(Rebuilt[tuple[Oracle, int]]):
    """Keeps the latest rows and fits a model to them now and then: a subclass says which.

    It is fitted every ``every`` feedbacks, or each time they have grown by a quarter if that is more, up to a quarter
    of the memory; in the process that learns, never in one that serves. Until the first fit it expects the low end of
    the range.

    A worker fits (``work_in``), and rows are taken in meanwhile. The model takes over between two batches, whole; a fit
    that falls due before begins then, on the latest rows there are. Only where a whole memory of rows has come in since
    the fit was begun are further ones made to wait for it: its rows are kept until it is done, so that a learner that
    goes on from a file fits the same rows again. With ``AT_ONCE``, as in simulations, when it is fitted depends on the
    number of feedbacks alone, so any split into batches gives the same.

    Parameters
    ----------
    columns
        The form of the rows.
    memory, every, max_actions
        See ``TreesConfig`` and ``SklearnConfig``.
    """

    kind: ClassVar[str]

    def __init__(self, columns: Columns, *, memory: int, every: int, max_actions: int) -> None:
        super().__init__()
        self.columns = columns
        self.memory = memory
        self.every = every
        self.learned = 0
        self._words = Vocabulary(max_actions)
        self._rows = LatestRows(columns.width)
        self._due = every
        self._fitted: Oracle = LinearOracle.constant(columns.low, columns.width)
        self._known = 0

    @abstractmethod
    def fit(self, X: Float32, codes: Int64, rewards: Float64, weights: Float64, before: Oracle) -> Oracle:
        """Fit the model to rows, by a thread of the worker's: it may look at nothing that changes.

        Parameters
        ----------
        X : ndarray of float32, shape (n_rows, width)
            Encoded (context, chosen action) pairs.
        codes : ndarray of int64, shape (n_rows,)
            Those of ``vocabulary``; 0: an action beyond ``max_actions``.
        rewards, weights : ndarray of float64, shape (n_rows,)
            Weights may be 0.
        before
            The model that was fitted before.
        """

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
        self.settle()
        self._words.learn(actions)
        at = 0
        while at < len(actions):
            most = 2 * self.memory - len(self._rows)
            if not self._building:
                most = min(most, self._due - self.learned)
            part = slice(at, min(at + most, len(actions)))
            self._rows.add(rows[part], actions[part], targets[part], w[part])
            self.learned += part.stop - at
            at = part.stop
            if not self._building and self.learned == self._due:
                self._begin()
            elif len(self._rows) >= 2 * self.memory:
                if self._building:
                    self._take_over()
                self._rows.keep(self.memory)

    def refit(self) -> None:
        """Fit the model to the latest rows now, and wait for it."""
        self.settle()
        while self._building:
            self._take_over()
        self._begin()
        while self._building:
            self._take_over()

    def _take_over(self) -> None:
        """Let the model that is being fitted take over once it is; begin the next fit if that is due."""
        self._fitted, self._known = self._errand.take()
        if self.learned >= self._due:
            self._begin()

    def _begin(self) -> None:
        self._rows.keep(self.memory)
        self._due = self.learned + max(self.every, len(self._rows) // 4)
        self._send(self.learned)
        self.settle()

    def _send(self, at: int) -> None:
        """Have the rows fitted that there were after ``at`` feedbacks."""
        kept = self._rows
        rows = slice(0, len(kept) - (self.learned - at))
        codes = self._words.learn(kept.actions()[rows])
        # Nothing is ever written into these arrays again.
        work = partial(self._fit, kept.X[rows], codes, kept.rewards[rows], kept.weights[rows], self._fitted)
        self._errand.send(at, work)

    def _fit(self, X: Float32, codes: Int64, rewards: Float64, weights: Float64, before: Oracle) -> tuple[Oracle, int]:
        return self.fit(X, codes, rewards, weights, before), int(codes.max(initial=0))

    def oracle(self) -> Oracle:
        """Return the model that was fitted last; it never changes."""
        return self._fitted

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return Following(self)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened.

        A fit that is under way is not waited for: its rows are there, and it is begun again.
        """
        c = self.columns
        return {
            **flat([self._fitted]),
            **self._rows.arrays(),
            "vocabulary": self._words.array(),
            "counts": np.array([self.learned, self._due, self._known]),
            "under_way": self._errand.array(),
            "columns": np.array([c.context, c.action, c.low, c.high]),
        }

    def _restore(self, arrays: Arrays) -> None:
        from engine.oracles import ORACLES

        self.learned, self._due, self._known = integers(arrays["counts"], 3)
        self._words = Vocabulary.from_array(self._words.limit, arrays["vocabulary"])
        self._rows = LatestRows.from_arrays(arrays, self.columns.width)
        self._errand.owe_array(arrays["under_way"], self.learned, len(self._rows))
        if not self._known <= len(self._words.ids) or not (self._due > self.learned or self._building):
            raise ValueError(f"counts {arrays['counts']} do not fit {len(self._words.ids)} actions")
        (self._fitted,) = parts_of(arrays, ORACLES)
