"""Whole decisions to learn from: all that was offered, what was chosen, and with which probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.oracles.base import Float64, Int64, Learner


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """``n`` decisions with their ``m`` offered actions; decision i owns the flat rows starts[i] to starts[i + 1].

    Attributes
    ----------
    X : ndarray of float32, shape (m, width)
        Encoded (context, action) pairs.
    actions : list of str, length m
    available : ndarray of bool, shape (m,)
        False where the action was excluded.
    starts : ndarray of int64, shape (n + 1,)
    chosen : ndarray of int64, shape (n,)
        Flat row of the chosen action.
    propensity : ndarray of float64, shape (n,)
        Probability with which it was drawn.
    rewards : ndarray of float64, shape (n,)
    weights : ndarray of float64, shape (n,)
        Importance of each decision.
    """

    X: Float32
    actions: list[str]
    available: NDArray[np.bool_]
    starts: Int64
    chosen: Int64
    propensity: Float64
    rewards: Float64
    weights: Float64

    def __post_init__(self) -> None:
        n = len(self.chosen)
        if len(self.starts) != n + 1 or len(self.X) != len(self.actions) or len(self.actions) != int(self.starts[-1]):
            raise ValueError(f"{len(self.starts)} starts, {len(self.actions)} actions and {n} choices do not fit")
        if n and not (float(self.propensity.min()) > 0.0 and float(self.propensity.max()) <= 1.0 + 1e-9):
            raise ValueError("propensities must lie in (0, 1]: what was chosen had a probability")

    def __len__(self) -> int:
        """Return the number of decisions."""
        return len(self.chosen)

    def chosen_actions(self) -> list[str]:
        """Return the id of each chosen action."""
        return [self.actions[flat] for flat in self.chosen]


@runtime_checkable
class EventLearner(Protocol):
    """A learner that needs the whole decision, not the chosen row alone."""

    def learn_events(self, events: Events) -> None:
        """Learn from decisions, in their order."""


def learn_events(learner: Learner, events: Events) -> None:
    """Let a learner learn from decisions: from the chosen rows, unless it needs more."""
    if isinstance(learner, EventLearner):
        learner.learn_events(events)
    else:
        learner.partial_fit(events.X[events.chosen], events.chosen_actions(), events.rewards, events.weights)
