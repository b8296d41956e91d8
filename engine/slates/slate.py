"""A ranked list, and with which probability it was drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Slate:
    """A list of different actions, best slot first.

    Attributes
    ----------
    actions : tuple of int
        Index of the action in each slot.
    vectors : ndarray of float64, shape (n_slots, n_actions)
        Row j is the vector that slot j was drawn from: the probability of each action given the slots before; 0 for
        actions that stand in them.
    """

    actions: tuple[int, ...]
    vectors: Float64

    @property
    def propensities(self) -> tuple[float, ...]:
        """The probability of each slot's action given the slots before."""
        return tuple(float(self.vectors[slot, action]) for slot, action in enumerate(self.actions))

    @property
    def probability(self) -> float:
        """The probability of the whole list: the product of the slots' propensities."""
        return math.prod(self.propensities)


def check_slots(slots: int, supported: int) -> None:
    """Raise ``ValueError`` where so many slots cannot be filled with actions of positive probability."""
    if not 1 <= slots <= supported:
        raise ValueError(
            f"{slots} slots, and {supported} actions have a positive probability; ask for 1 to {supported}"
        )
