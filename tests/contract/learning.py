"""Feedback for learners: rows, and the same as whole decisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.oracles import Columns, Events

Float64 = NDArray[np.float64]

COLUMNS = Columns(3, 2)
ACTIONS = ("north", "east", "south")


class Feedback:
    """Three actions of unequal number, noisy rewards in a range, unequal weights."""

    def __init__(self, count: int, seed: int = 0, columns: Columns = COLUMNS) -> None:
        rng = np.random.default_rng(seed)
        self.X: Float32 = rng.normal(size=(count, columns.width)).astype(np.float32)
        codes = rng.choice(3, size=count, p=[0.6, 0.3, 0.1])
        self.actions = [ACTIONS[code] for code in codes]
        chance = 1.0 / (1.0 + np.exp(-self.X[:, 0] - codes + 1.0))
        won = rng.random(count) < chance
        self.rewards: Float64 = np.where(won, columns.high, columns.low).astype(np.float64)
        self.weights: Float64 = rng.uniform(0.1, 3.0, size=count)

    def __len__(self) -> int:
        return len(self.actions)

    def part(self, start: int, stop: int | None) -> tuple[Float32, list[str], Float64, Float64]:
        """Return what ``partial_fit`` takes, of some rows."""
        part = slice(start, stop)
        return self.X[part], self.actions[part], self.rewards[part], self.weights[part]


def events_of(X: Float32, actions: list[str], rewards: Float64, weights: Float64 | None = None) -> Events:
    """Return rows as decisions between all three actions that were drawn uniformly."""
    n = len(actions)
    flat = np.repeat(X, 3, axis=0)
    return Events(
        X=flat,
        actions=list(ACTIONS) * n,
        available=np.ones(3 * n, np.bool_),
        starts=np.arange(0, 3 * n + 1, 3),
        chosen=np.array([3 * i + ACTIONS.index(action) for i, action in enumerate(actions)], dtype=np.int64),
        propensity=np.full(n, 1.0 / 3.0),
        rewards=rewards,
        weights=np.ones(n) if weights is None else weights,
    )
