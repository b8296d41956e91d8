"""What an exploration is: the map from what an oracle predicts to a probability vector."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import ExplorationConfig
from engine.prediction import Part, Prediction

Float64 = NDArray[np.float64]


class Exploration(Protocol):
    """One way to explore: a subclass, immutable. The contract suite in ``tests/contract`` finds every one.

    Attributes
    ----------
    kind
        Its name in the configuration.
    needs
        What it needs of a prediction beside the mean; only oracles that give it can be combined with it.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[Part]] = frozenset()

    @classmethod
    def from_config(cls, config: ExplorationConfig) -> Exploration:
        """Build it from its part of the configuration."""

    def pmf(self, prediction: Prediction, learned: int) -> Float64:
        """Return the probability of each action.

        Parameters
        ----------
        prediction
            Of each available action, in units of the reward's range. Finite.
        learned : int
            Number of feedbacks that the oracle has learned from.

        Returns
        -------
        ndarray of float64, shape (n_actions,)
            Not negative, with sum 1. Actions with equal predictions get equal probabilities; the order of the actions
            does not matter.
        """

    def due(self, served: int, learned: int) -> bool:
        """Say whether a policy that had learned ``served`` feedbacks is to give way to one that has ``learned``.

        Always, but for explorations in epochs: their guarantee holds for oracles that stay as they are within one.
        """
        return True
