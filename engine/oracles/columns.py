"""What a learner is told of its problem: how the columns of X fall into context and action, and the rewards' range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config.point import DecisionPoint
from engine.features import Encoder


@dataclass(frozen=True, slots=True)
class Columns:
    """The form of a decision point's rows.

    Attributes
    ----------
    context : int
        Leading columns of X that belong to the context, and are the same for all actions of a request.
    action : int
        Columns after them, that belong to the action.
    low, high : float
        Declared range of the reward.
    """

    context: int
    action: int = 0
    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.context + self.action

    @classmethod
    def of(cls, point: DecisionPoint) -> Columns:
        """Return those of a decision point.

        >>> from engine.config import DecisionPoint
        >>> Columns.of(DecisionPoint.model_validate({"context": {"age": {"type": "number"}}}))
        Columns(context=1, action=0, low=0.0, high=1.0)
        """
        encoder = Encoder(point)
        return cls(encoder.context.width, encoder.action.width, *point.reward.range)

    @classmethod
    def from_array(cls, array: NDArray[np.generic]) -> Columns:
        """Return those of four numbers in the order of the attributes; raises ``ValueError``."""
        numbers = np.array(array, dtype=np.float64)
        if numbers.shape != (4,) or not np.isfinite(numbers).all():
            raise ValueError(f"columns {numbers} must be four finite numbers")
        context, action, low, high = numbers.tolist()
        if context < 0 or action < 0 or not low < high:
            raise ValueError(f"columns {numbers} are no form of rows")
        return cls(int(context), int(action), low, high)
