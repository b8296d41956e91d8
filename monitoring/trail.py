"""What a monitor remembers of the positions at which its detector may yet place a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.detector import IntArray
from monitoring.state import Array
from monitoring.verdict import Moments

#: Position, decision time, and the sums over the stream before that position.
_ROW = np.dtype(
    [
        ("index", np.int64),
        ("time_ms", np.int64),
        ("reward_sum", np.float64),
        ("residuals", np.int64),
        ("residual_sum", np.float64),
        ("residual_squares", np.float64),
    ]
)


@dataclass(frozen=True, slots=True)
class Split:
    """The segment on both sides of a change. Rewards and residuals are shares of the reward range."""

    change_ms: int
    mean_before: float
    mean_after: float
    residuals_before: Moments
    residuals_after: Moments


class Trail:
    """Running sums of rewards and residuals at the starts of a detector's forecasters, and at the latest positions.

    One row more for each observation, and from time to time those are dropped that the detector no longer holds. So
    memory has the detector's bound, and what is looked up is exact.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(64, _ROW)
        self._length = 0
        self._seen = 0
        self._reward_sum = 0.0
        self._residuals = Moments()

    def __len__(self) -> int:
        """Positions held."""
        return self._length

    def add(self, time_ms: int, reward: float, residual: float | None) -> None:
        """Take the next observation; ``residual`` is None where the decision was not scored."""
        if self._length == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        r = self._residuals
        self._rows[self._length] = (self._seen, time_ms, self._reward_sum, r.count, r.total, r.squares)
        self._length += 1
        self._seen += 1
        self._reward_sum += reward
        if residual is not None:
            self._residuals = r.add(residual)

    def split(self, anchor: int, index: int) -> Split:
        """Return both sides of a change at ``index`` in the segment that began at ``anchor``."""
        first, change = self._row(anchor), self._row(index)
        return Split(
            change_ms=int(change["time_ms"]),
            mean_before=float(change["reward_sum"] - first["reward_sum"]) / (index - anchor),
            mean_after=(self._reward_sum - float(change["reward_sum"])) / (self._seen - index),
            residuals_before=_moments(change) - _moments(first),
            residuals_after=self._residuals - _moments(change),
        )

    def keep(self, starts: IntArray) -> None:
        """Forget all positions but these."""
        rows = self._rows[: self._length]
        kept = rows[np.isin(rows["index"], starts, assume_unique=True)]
        self._rows[: len(kept)] = kept
        self._length = len(kept)

    def _row(self, index: int) -> np.void:
        row = int(np.searchsorted(self._rows["index"][: self._length], index))
        found: np.void = self._rows[row]
        if row == self._length or found["index"] != index:
            raise LookupError(f"position {index} is not held: the trail is out of step with its detector")
        return found

    def fields(self) -> dict[str, int | float]:
        """Return the totals, to be saved."""
        r = self._residuals
        return {
            "seen": self._seen,
            "reward_sum": self._reward_sum,
            "residuals": r.count,
            "residual_sum": r.total,
            "residual_squares": r.squares,
        }

    def columns(self) -> dict[str, Array]:
        """Return the rows column by column, to be saved."""
        return {name: np.ascontiguousarray(self._rows[name][: self._length]) for name in _ROW.names or ()}

    @classmethod
    def restored(cls, fields: Mapping[str, Any], columns: Mapping[str, Any]) -> Trail:
        """Return the trail of saved totals and columns."""
        trail = cls()
        trail._seen = fields["seen"]
        trail._reward_sum = fields["reward_sum"]
        trail._residuals = Moments(fields["residuals"], fields["residual_sum"], fields["residual_squares"])
        trail._length = len(columns["index"])
        trail._rows = np.zeros(max(64, trail._length), _ROW)
        for name in _ROW.names or ():
            trail._rows[name][: trail._length] = columns[name]
        return trail


def _moments(row: np.void) -> Moments:
    return Moments(int(row["residuals"]), float(row["residual_sum"]), float(row["residual_squares"]))
