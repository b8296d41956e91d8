"""What an exploration is: the map from an oracle's scores to a probability vector."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import ExplorationConfig

Float64 = NDArray[np.float64]


class Exploration(Protocol):
    """One way to explore. Immutable; the contract suite in ``tests/contract`` finds every one."""

    kind: ClassVar[str]

    @classmethod
    def from_config(cls, config: ExplorationConfig) -> Exploration:
        """Build it from its part of the configuration."""

    def pmf(self, scores: Float64, learned: int) -> Float64:
        """Return the probability of each action.

        Parameters
        ----------
        scores : ndarray of float64, shape (n_actions,)
            Expected reward of each available action, in units of the reward's range. Finite.
        learned : int
            Number of feedbacks that the oracle has learned from.

        Returns
        -------
        ndarray of float64, shape (n_actions,)
            Not negative, with sum 1. Equal scores get equal probabilities; the order of the actions does not matter.
        """
