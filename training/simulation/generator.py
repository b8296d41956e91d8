"""Made-up worlds, whose truth is known: ``PROBLEMS`` by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.config import DecisionPoint
from engine.features import Encoder
from training.simulation.world import Float64, Offer, Visits

#: Visits of a run where nothing else is said.
VISITS = 10_000
#: Visits after which the drifting world is where it was.
PERIOD = 10_000

#: From the features (n, d) and the generator of the problem's own numbers to the mean reward (n, K).
Truth = Callable[[Float64, np.random.Generator], Float64]


class Generator:
    """Rewards of 0 or 1 whose mean is a known function of context and action.

    Contexts and rewards differ from seed to seed. The function itself has a seed of its own, so that it is the same
    problem each time.

    Parameters
    ----------
    name
        Of the problem.
    width, actions
        Numbers in the context, number of actions.
    truth
        The mean reward.
    unit_length
        Whether contexts lie on the unit sphere; otherwise they are standard normal.
    """

    def __init__(self, name: str, width: int, actions: int, truth: Truth, *, unit_length: bool) -> None:
        self.name = name
        self.actions = [f"a{action}" for action in range(actions)]
        self.point = DecisionPoint.model_validate({"context": {"x": {"type": "vector", "size": width}}})
        self._width = width
        self._truth = truth
        self._unit_length = unit_length
        self.length = VISITS

    def visits(self, seed: int, count: int | None, offer: Offer) -> Visits:
        """Return a run; see ``World.visits``."""
        n = self.length if count is None else count
        rng = np.random.default_rng([seed, 0])
        X = rng.normal(size=(n, self._width))
        if self._unit_length:
            X /= np.linalg.norm(X, axis=1, keepdims=True)
        context = X.astype(np.float32)
        expected = self._truth(context.astype(np.float64), np.random.default_rng(7))
        reward = (rng.random(expected.shape) < expected).astype(np.float64)
        offered, masked = offer.draw(np.random.default_rng([seed, 1]), n, len(self.actions))
        width = Encoder(self.point).action.width
        return Visits(self.actions, context, width, offered, masked, reward, expected, seed)


def _directions(rng: np.random.Generator, actions: int, width: int) -> Float64:
    directions = rng.normal(size=(actions, width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions


def linear(X: Float64, rng: np.random.Generator) -> Float64:
    """Mean reward linear in the context, with coefficients by action: a linear oracle can be right."""
    return 0.5 + 0.5 * X @ _directions(rng, 5, X.shape[1]).T


def drifting(X: Float64, rng: np.random.Generator) -> Float64:
    """The same, while the coefficients of each action turn in a plane of its own, once in ``PERIOD`` visits."""
    one, other = _directions(rng, 5, X.shape[1]), _directions(rng, 5, X.shape[1])
    other -= (one * other).sum(axis=1, keepdims=True) * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    angle = 2.0 * np.pi * np.arange(len(X))[:, None] / PERIOD
    return 0.5 + 0.5 * (np.cos(angle) * (X @ one.T) + np.sin(angle) * (X @ other.T))


def logistic(X: Float64, rng: np.random.Generator) -> Float64:
    """A smooth function that no linear oracle can be right about, with many more successes than failures.

    The log-odds of each action are a constant, a slope and a wave, in random directions. The uniform policy earns
    0.72, the best of the actions that are offered with probability 0.7 each 0.93.
    """
    slope, wave = (_directions(rng, 8, X.shape[1]).T for _ in range(2))
    chance: Float64 = 1.0 / (1.0 + np.exp(-(1.3 + 1.3 * X @ slope + 0.8 * np.sin(X @ wave))))
    return chance


#: By the name that the command line gives.
PROBLEMS: dict[str, Generator] = {
    "linear": Generator("linear", 8, 5, linear, unit_length=True),
    "logistic": Generator("logistic", 10, 8, logistic, unit_length=False),
    "drifting": Generator("drifting", 8, 5, drifting, unit_length=True),
}
