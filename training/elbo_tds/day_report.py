"""What is known of a day once it was scored and learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from training.sessions.metrics import Ranking


@dataclass(frozen=True)
class DayReport:
    """One day of training.

    Attributes
    ----------
    day
        Its number.
    rankings : mapping of Ranking, by task
        How well the model of the days before ranked it; empty on the first day.
    losses
        Means over the day's steps of the terms of the loss.
    """

    day: int
    rankings: Mapping[str, Ranking]
    losses: Mapping[str, float]

    def metrics(self) -> dict[str, float]:
        """Return all that is a finite number, by name."""
        found = {f"loss/{name}": value for name, value in self.losses.items()}
        for task, ranking in self.rankings.items():
            found |= {f"{task}/{name}": value for name, value in asdict(ranking).items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_json` was called on."""
        rankings = {task: Ranking(**ranking) for task, ranking in value["rankings"].items()}
        return cls(int(value["day"]), rankings, dict(value["losses"]))
