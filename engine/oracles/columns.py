"""What a learner is told of its problem: how the columns of X fall into context and action, and the rewards' range."""

from __future__ import annotations

from dataclasses import dataclass

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
