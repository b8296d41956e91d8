"""Short-term memory: any learner over the latest feedbacks alone, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from engine.config.oracle import OracleConfig
from engine.features import Float32
from engine.oracles.background import Rebuilt
from engine.oracles.base import Arrays, Float64, Int64, Learner, Oracle, batch
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.nested import flat, integers, parts_of, read_text, text
from engine.oracles.vocabulary import Vocabulary


class LatestRows:
    """The latest rows, in their order, in arrays that do not grow beyond ``most``.

    Attributes
    ----------
    X, codes, rewards, weights : ndarray
        Of the rows that are kept: codes into ``words``, plus 1.
    words : Vocabulary
        All action ids that were ever seen.
    """

    def __init__(self, width: int) -> None:
        self.words = Vocabulary(2**62)
        self.X: Float32 = np.zeros((0, width), np.float32)
        self.codes: Int64 = np.zeros(0, np.int64)
        self.rewards: Float64 = np.zeros(0)
        self.weights: Float64 = np.zeros(0)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def add(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64) -> None:
        """Append rows."""
        self.X = np.concatenate([self.X, X])
        self.codes = np.concatenate([self.codes, self.words.learn(actions)])
        self.rewards = np.concatenate([self.rewards, rewards])
        self.weights = np.concatenate([self.weights, weights])

    def keep(self, count: int) -> None:
        """Drop all but the latest ``count``."""
        if len(self) > count:
            self.X, self.codes = self.X[-count:].copy(), self.codes[-count:].copy()
            self.rewards, self.weights = self.rewards[-count:].copy(), self.weights[-count:].copy()
            # Ids of rows that are gone would make it grow without end.
            used, self.codes = np.unique(self.codes, return_inverse=True)
            self.words = Vocabulary(2**62, [self.words.ids[code - 1] for code in used])
            self.codes = self.codes.astype(np.int64) + 1

    def actions(self) -> list[str]:
        """Return the action id of each row."""
        return [self.words.ids[code - 1] for code in self.codes]

    def arrays(self) -> Arrays:
        """Return all that it is."""
        return {
            "rows.X": self.X,
            "rows.codes": self.codes,
            "rows.rewards": self.rewards,
            "rows.weights": self.weights,
            "rows.words": self.words.array(),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, width: int) -> LatestRows:
        """Build it again; raises ``ValueError`` where the arrays do not fit each other."""
        rows = cls(width)
        rows.words = Vocabulary.from_array(2**62, arrays["rows.words"])
        rows.X = np.array(arrays["rows.X"], dtype=np.float32)
        rows.codes = np.array(arrays["rows.codes"], dtype=np.int64)
        rows.rewards, rows.weights = (np.array(arrays[f"rows.{name}"], np.float64) for name in ("rewards", "weights"))
        count = len(rows.codes) if rows.codes.ndim == 1 else -1
        known = len(rows.words.ids)
        if rows.X.shape != (count, width) or not rows.rewards.shape == rows.weights.shape == (count,):
            raise ValueError(f"kept rows of shapes {rows.X.shape} and {rows.codes.shape} do not fit width {width}")
        if count and not 1 <= rows.codes.min() <= rows.codes.max() <= known:
            raise ValueError(f"kept rows name actions beyond the {known} there are")
        return rows


class WindowLearner(Rebuilt[Learner]):
    """A learner that knows the latest ``memory`` feedbacks, and up to a tenth more, and nothing before.

    Rows are learned as they come. Once a tenth more than ``memory`` are there, the learner is built anew from the
    latest ``memory`` of them: exact for every kind, with bounded memory, and each row is learned about 11 times.
    When that happens depends on the number of feedbacks alone, so any split into batches gives the same.

    A worker may build it (``work_in``). The learner that there is goes on meanwhile, with that many rows more than it
    should know; the new one is taught them too before it takes over, between two batches. Only at twice as many rows
    are further ones made to wait.

    Parameters
    ----------
    config
        ``policy.oracle``: what learns.
    columns
        The form of the rows.
    memory
        Feedbacks that count.
    """

    kind: ClassVar[str] = "window"

    def __init__(self, config: OracleConfig, columns: Columns, memory: int) -> None:
        super().__init__()
        self.config = config
        self.columns = columns
        self.memory = memory
        self.learned = 0
        self._most = memory + max(1, memory // 10)
        self._rows = LatestRows(columns.width)
        self.learner = self._new()

    def _new(self) -> Learner:
        from engine.oracles.learners import learner_of

        return learner_of(self.config, self.columns)

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far; those of forgotten actions are given to others."""
        return self.learner.vocabulary

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.columns.width

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        self.settle()
        at = 0
        while at < len(actions):
            building = self._building
            part = slice(at, at + (2 if building else 1) * self._most - len(self._rows))
            self._rows.add(rows[part], actions[part], targets[part], w[part])
            self.learner.partial_fit(rows[part], actions[part], targets[part], w[part])
            at = min(part.stop, len(actions))
            self.learned += at - part.start
            if not building and len(self._rows) == self._most:
                self._begin()
            elif len(self._rows) == 2 * self._most:
                self._take_over()

    def _begin(self) -> None:
        self._rows.keep(self.memory)
        self._send(self.learned)
        self.settle()

    def _send(self, at: int) -> None:
        """Have a learner built of the rows that there were after ``at`` feedbacks."""
        kept = self._rows
        rows = slice(0, len(kept) - (self.learned - at))
        work = partial(
            self._built, self._new(), kept.X[rows], kept.actions()[rows], kept.rewards[rows], kept.weights[rows]
        )
        self._errand.send(at, work)

    @staticmethod
    def _built(learner: Learner, X: Float32, actions: list[str], rewards: Float64, weights: Float64) -> Learner:
        learner.partial_fit(X, actions, rewards, weights)
        return learner

    def _take_over(self) -> None:
        """Let the learner that is being built take over once it is; begin the next one if that is due."""
        at = self._errand.at
        built = self._errand.take()
        if at is not None and at < self.learned:
            kept, since = self._rows, slice(len(self._rows) - (self.learned - at), None)
            built.partial_fit(kept.X[since], kept.actions()[since], kept.rewards[since], kept.weights[since])
        self.learner = built
        if len(self._rows) >= self._most:
            self._begin()

    def oracle(self) -> Oracle:
        """Return what has been learned, as an oracle that no longer changes."""
        return self.learner.oracle()

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return Following(self, lambda: self.learner.live())

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        c = self.columns
        return {
            **flat([self.learner]),
            **self._rows.arrays(),
            "config": text(self.config.model_dump_json()),
            "counts": np.array([self.memory, self.learned]),
            "under_way": self._errand.array(),
            "columns": np.array([c.context, c.action, c.low, c.high]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> WindowLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        from pydantic import TypeAdapter

        from engine.oracles.learners import STORED

        columns = Columns.from_array(arrays["columns"])
        memory, learned = integers(arrays["counts"], 2)
        config: OracleConfig = TypeAdapter(OracleConfig).validate_json(read_text(arrays["config"]))
        window = cls(config, columns, memory)
        (window.learner,) = parts_of(arrays, STORED)
        window._rows = LatestRows.from_arrays(arrays, columns.width)
        window.learned = learned
        window._errand.owe_array(arrays["under_way"], learned, len(window._rows))
        return window
