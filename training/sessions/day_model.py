"""The protocol of models that are trained day by day: score a day first, then learn from it in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from training.sessions.sessions import Float32, Sessions


class DayModel(Protocol):
    """A recommender's model over time.

    The order is score(day t), learn(day t), score(day t + 1), ...; a model that kept what it needs of day t when it
    scored it, or looked at a label then, would be judged too well.
    """

    @property
    def name(self) -> str:
        """Name in tables and plots."""

    def score(self, sessions: Sessions) -> Float32:
        """Return a score for each row, higher for more likely labels: shape (n,), or (n, n_tasks).

        It must not depend on how the day is cut into chunks, nor on ``sessions.labels``. Before the first day was
        learned, scores are the model's prior, such as all 0.
        """

    def learn(self, day: Iterable[Sessions]) -> None:
        """Learn from a whole day, once through, in its order."""
