"""What a monitor remembers of the positions at which its detector may yet place a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.detector import FloatArray, IntArray
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

    def add(self, time_ms: IntArray, rewards: FloatArray, residuals: FloatArray) -> None:
        """Take the next observations; a residual is NaN where the decision was not scored."""
        count = len(time_ms)
        if self._length + count > len(self._rows):
            more = np.zeros(max(len(self._rows), count), _ROW)
            self._rows = np.concatenate([self._rows, more])
        scored = ~np.isnan(residuals)
        known = np.where(scored, residuals, 0.0)
        r = self._residuals
        rows = self._rows[self._length : self._length + count]
        rows["index"] = np.arange(self._seen, self._seen + count)
        rows["time_ms"] = time_ms
        sums = {
            "reward_sum": _running(self._reward_sum, rewards),
            "residuals": _running(r.count, scored.astype(np.int64)),
            "residual_sum": _running(r.total, known),
            "residual_squares": _running(r.squares, known * known),
        }
        for name, sum_ in sums.items():
            rows[name] = sum_[:-1]
        self._length += count
        self._seen += count
        self._reward_sum = float(sums["reward_sum"][-1])
        self._residuals = Moments(
            int(sums["residuals"][-1]), float(sums["residual_sum"][-1]), float(sums["residual_squares"][-1])
        )

    def split(self, anchor: int, index: int, end: int) -> Split:
        """Return both sides of a change at ``index`` in the segment from ``anchor`` to before ``end``."""
        first, change = self._row(anchor), self._row(index)
        if end == self._seen:
            reward_sum, residuals = self._reward_sum, self._residuals
        else:
            last = self._row(end)
            reward_sum, residuals = float(last["reward_sum"]), _moments(last)
        return Split(
            change_ms=int(change["time_ms"]),
            mean_before=float(change["reward_sum"] - first["reward_sum"]) / (index - anchor),
            mean_after=(reward_sum - float(change["reward_sum"])) / (end - index),
            residuals_before=_moments(change) - _moments(first),
            residuals_after=residuals - _moments(change),
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


def _running(start: float, values: FloatArray | IntArray) -> FloatArray | IntArray:
    """Return the sums before each value and after the last, added one after the other."""
    sums: FloatArray | IntArray = np.cumsum(np.concatenate([np.array([start], values.dtype), values]))
    return sums


def _moments(row: np.void) -> Moments:
    return Moments(int(row["residuals"]), float(row["residual_sum"]), float(row["residual_squares"]))
