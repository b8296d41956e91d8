"""Worlds to play policies in: what a world shows of itself, and the rewards that it keeps to itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import DecisionPoint
from training.dataset import Dataset

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Decision time of the first visit, and milliseconds between two: no clock is looked at, so that runs are equal.
START_MS = 1_767_225_600_000
STEP_MS = 1_000


@dataclass(frozen=True)
class Offer:
    """Which actions a visit offers.

    Attributes
    ----------
    available : float
        Probability with which each action is offered at all; at least one always is.
    masked : float
        Probability with which an offered action is excluded: listed, and never drawn; one at least never is.
    """

    available: float = 1.0
    masked: float = 0.0

    def draw(self, rng: np.random.Generator, visits: int, actions: int) -> tuple[Bool, Bool]:
        """Return which actions each visit offers, and which of these it excludes, both of shape (visits, actions)."""
        u = rng.random((visits, actions))
        # The action that comes out lowest is always offered; the same again for the one that is not excluded.
        offered = (u < self.available) | (u == u.min(axis=1, keepdims=True))
        v = np.where(offered, rng.random((visits, actions)), -1.0)
        masked = offered & (v < self.masked) & (v < v.max(axis=1, keepdims=True))
        return offered, masked


class Visits:
    """The visits of one run in their order. It alone knows the rewards, and tells that of the action drawn alone.

    Parameters
    ----------
    actions : sequence of str, length K
        Ids of the actions.
    context : ndarray of float32, shape (n, context width)
        Encoded and scaled, as ``engine.features.Encoder`` does.
    action_width : int
        Number of columns of an action.
    offered, masked : ndarray of bool, shape (n, K)
        See ``Offer``.
    reward : ndarray of float64, shape (n, K)
        What each action would earn at each visit.
    expected : ndarray of float64, shape (n, K)
        Its mean; the same where rewards are certain.
    seed : int
        Stands in the decision ids, which decide the draws.
    """

    def __init__(
        self,
        actions: list[str],
        context: Float32,
        action_width: int,
        offered: Bool,
        masked: Bool,
        reward: Float64,
        expected: Float64,
        seed: int,
    ) -> None:
        self._ids = np.array(actions, dtype=np.object_)
        self._context = context
        self._action_width = action_width
        self._offered = offered
        self._masked = masked
        self._reward = reward
        self._expected = expected
        self._seed = seed
        self._answered = 0

    def __len__(self) -> int:
        """Return the number of visits."""
        return len(self._context)

    def requests(self, begin: int, stop: int) -> Dataset:
        """Return visits ``begin`` to ``stop`` as they are before the decision: no vector, nothing chosen, no reward."""
        offered = self._offered[begin:stop]
        row, column = np.nonzero(offered)
        count = len(offered)
        return Dataset(
            decision_id=np.array([f"sim-{self._seed}-{number}" for number in range(begin, stop)], dtype=np.object_),
            time_ms=START_MS + STEP_MS * np.arange(begin, stop, dtype=np.int64),
            policy_version=np.full(count, "", dtype=np.object_),
            starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(offered.sum(axis=1), dtype=np.int64)]),
            context=self._context[begin:stop],
            action=np.zeros((len(row), self._action_width), dtype=np.float32),
            action_ids=self._ids[column],
            available=~self._masked[begin:stop][row, column],
            probabilities=np.zeros(len(row)),
            chosen=np.zeros(count, dtype=np.int64),
            reward=np.full(count, np.nan),
            defaulted=np.zeros(count, dtype=np.bool_),
        )

    def rewards(self, begin: int, chosen: Int64) -> Float64:
        """Return what the drawn actions earn at the visits from ``begin`` on, shape (len(chosen),).

        Each visit answers once, in order: nobody can try one action after the other. ``chosen`` counts within what
        was offered. Raises ``RuntimeError`` for a visit that was answered already, or is not next.
        """
        if begin != self._answered:
            raise RuntimeError(f"visit {begin} cannot be answered: visit {self._answered} is next")
        self._answered += len(chosen)
        rows = np.arange(begin, self._answered)
        return self._reward[rows, self._columns(begin, chosen)]

    def shortfall(self, begin: int, chosen: Int64) -> Float64:
        """Return by how much the best action that could be drawn is better than the drawn one, in expectation.

        It is for the book, not for learners.
        """
        rows = slice(begin, begin + len(chosen))
        could = np.where(self._offered[rows] & ~self._masked[rows], self._expected[rows], -np.inf)
        short: Float64 = could.max(axis=1) - self._expected[np.arange(begin, rows.stop), self._columns(begin, chosen)]
        return short

    def _columns(self, begin: int, chosen: Int64) -> Int64:
        offered = self._offered[begin : begin + len(chosen)]
        _, columns = np.nonzero(offered)
        starts = np.concatenate([[0], np.cumsum(offered.sum(axis=1))[:-1]])
        picked: Int64 = columns[starts + chosen]
        return picked


class World(Protocol):
    """A problem to play: a labelled table, or a generator.

    Attributes
    ----------
    name
        What it is, for reports.
    point
        Its decision point, with the features and the reward's range of the world.
    length
        Visits of a run where nothing else is said.
    """

    name: str
    point: DecisionPoint
    length: int

    def visits(self, seed: int, count: int | None, offer: Offer) -> Visits:
        """Return a run of ``count`` visits (``None``: ``length``), decided by the seed."""
