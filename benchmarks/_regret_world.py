"""Synthetic worlds that a linear oracle can learn, and the regret of an exploration in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config.oracle import RecursiveRidgeConfig
from engine.exploration import Exploration, Falcon
from engine.oracles import Columns, RecursiveRidgeLearner, predict
from engine.sampling import draw

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Contexts in the order of a seed, and what each action is worth in them; rewards are 0 or 1.

    Attributes
    ----------
    contexts : ndarray of float32, shape (n, d)
    expected : ndarray of float64, shape (n, K)
        Linear in the context for each action.
    seed : int
        Of the rewards and the draws too.
    """

    contexts: NDArray[np.float32]
    expected: Float64
    seed: int

    @property
    def actions(self) -> int:
        """K."""
        return int(self.expected.shape[1])


def linear_world(rounds: int, seed: int, actions: int = 5, width: int = 5) -> World:
    """Return contexts on the unit sphere and rewards 1/2 + 2/5 theta_a' x, with theta_a on it too."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(actions, width))
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    X = rng.normal(size=(rounds, width))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return World(X.astype(np.float32), 0.5 + 0.4 * X @ theta.T, seed)


def small_loss_world(rounds: int, seed: int, actions: int = 5) -> World:
    """Return contexts of one kind for each action: that action loses 1 in 100, every other 4 in 10."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(actions, size=rounds)
    right = np.eye(actions)[kinds]
    return World(right.astype(np.float32), np.where(right == 1.0, 0.99, 0.6), seed)


def regret(world: World, exploration: Exploration, ridge: float = 1.0) -> Float64:
    """Return the regret after each round, shape (n,): what the vector gives up in expectation, summed."""
    width = world.contexts.shape[1]
    learner = RecursiveRidgeLearner(
        Columns(width), RecursiveRidgeConfig(structure="per_action", ridge=ridge, noise=0.5)
    )
    epochs = isinstance(exploration, Falcon)
    oracle, served = (learner.oracle() if epochs else learner.live()), 0
    ids = [str(action) for action in range(world.actions)]
    rows = np.empty((world.actions, width), dtype=np.float32)
    codes = np.zeros(world.actions, dtype=np.int64)
    known = codes.copy() if epochs else codes
    rewards = np.random.default_rng((world.seed, 1)).random(len(world.contexts))
    lost = np.empty(len(world.contexts))
    salt = f"regret {world.seed}"
    for number, context in enumerate(world.contexts):
        rows[:] = context
        p = exploration.pmf(predict(oracle, rows, known, exploration.needs), served)
        expected = world.expected[number]
        lost[number] = expected.max() - p @ expected
        action = draw(str(number), salt, p.tolist())
        reward = np.array([float(rewards[number] < expected[action])])
        learner.partial_fit(rows[action : action + 1], [ids[action]], reward)
        if not codes[action]:
            codes[action] = learner.vocabulary.index(ids[action]) + 1
        if not epochs:
            served = learner.learned
        elif exploration.due(served, learner.learned):
            oracle, known, served = learner.oracle(), codes.copy(), learner.learned
    return np.cumsum(lost)


def exponent(curve: Float64, start: int) -> float:
    """Return the slope of log regret on log rounds, least squares over points evenly spread from ``start`` on."""
    points = np.unique(np.geomspace(start, len(curve), 17).astype(int))
    return float(np.polyfit(np.log(points), np.log(curve[points - 1]), 1)[0])
