"""The streams of one monitor with equally many categories: changes with their times, and divergences from the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from monitoring.budget import PREDICTOR
from monitoring.detector import Change, FloatArray, IntArray
from monitoring.rbocpd import RBOCPDBank
from monitoring.state import Array
from monitoring.weights import ShapedWeight

#: Forecasters for each octave of age: half of the default, for many streams.
_PER_OCTAVE = 8
#: No stream of more than two categories can alarm within so few observations of a change, so only every fourth is taken
#: for the first after it.
_STRIDE = 4
#: Times that are remembered of each stream, denser the younger.
_MARKS = 48
#: Observations of a block, of which one divergence is computed, and how many of those are kept.
BLOCK = 200
BLOCKS = 96


@dataclass(frozen=True, slots=True)
class Shift:
    """A change in one stream, with its time."""

    #: Position in the batch of the row that revealed it.
    row: int
    stream: int
    change: Change
    change_ms: int

    @property
    def effect(self) -> float:
        """Total variation distance between the shares of the categories before and after, in [0, 1]."""
        before = np.array(self.change.counts_before) / self.change.count_before
        after = np.array(self.change.counts_after) / self.change.count_after
        return float(0.5 * np.abs(after - before).sum())


class StreamBank:
    """R-BOCPD on S streams of K categories.

    Parameters
    ----------
    expected
        Shares of the categories in the reference window, shape (S, K).
    weight
        Of each stream; calibrated, which sets its false alarms.
    """

    def __init__(self, expected: FloatArray, weight: ShapedWeight) -> None:
        streams, categories = expected.shape
        self.bank = RBOCPDBank(
            *(streams, weight, categories, PREDICTOR),
            per_octave=_PER_OCTAVE,
            stride=1 if categories == 2 else _STRIDE,
        )
        self._expected = expected
        self._mark_index = np.zeros((streams, _MARKS), np.int64)
        self._mark_ms = np.zeros((streams, _MARKS), np.int64)
        self._marks = np.zeros(streams, np.int64)
        self._block = np.zeros((streams, categories), np.int64)
        self._divergence = np.zeros((streams, BLOCKS))
        self._blocks = np.zeros(streams, np.int64)

    def __len__(self) -> int:
        """Number of streams."""
        return len(self.bank)

    def divergences(self, stream: int) -> FloatArray:
        """Return how far the latest blocks of a stream were from its reference, oldest first: JS distances."""
        return self._divergence[stream, : self._blocks[stream]]

    def update(self, streams: IntArray, rows: IntArray, categories: IntArray, time_ms: IntArray) -> list[Shift]:
        """Take observations, those of a stream in order.

        Parameters
        ----------
        streams, rows, categories
            The stream, the row of the batch, and the category of each observation.
        time_ms
            Time of each row of the batch.
        """
        if not len(streams):
            return []
        order = np.lexsort((rows, streams))
        streams, rows, categories = streams[order], rows[order], categories[order]
        seen = self.bank.seen
        present, first = np.unique(streams, return_index=True)
        self._mark(present, seen[present], time_ms[rows[first]])
        np.add.at(self._block, (streams, categories), 1)
        self._close_blocks(present)
        shifts = []
        for position, stream, change in self.bank.update_many(streams, categories):
            begin = int(first[np.searchsorted(present, stream)])
            index = change.index - int(seen[stream])
            change_ms = int(time_ms[rows[begin + index]]) if index >= 0 else self._time(stream, change.index)
            shifts.append(Shift(int(rows[position]), stream, change, change_ms))
        return sorted(shifts, key=lambda shift: shift.row)

    def _mark(self, streams: IntArray, index: IntArray, time_ms: IntArray) -> None:
        full = streams[self._marks[streams] == _MARKS]
        if len(full):
            # Of the older half every second one goes, so that ages are kept about geometrically.
            keep = np.concatenate([np.arange(0, _MARKS // 2, 2), np.arange(_MARKS // 2, _MARKS)])
            for marks in (self._mark_index, self._mark_ms):
                marks[full, : len(keep)] = marks[full][:, keep]
            self._marks[full] = len(keep)
        self._mark_index[streams, self._marks[streams]] = index
        self._mark_ms[streams, self._marks[streams]] = time_ms
        self._marks[streams] += 1

    def _time(self, stream: int, index: int) -> int:
        """Return about when an observation came, between the nearest ones whose times are known."""
        count = int(self._marks[stream])
        return round(float(np.interp(index, self._mark_index[stream, :count], self._mark_ms[stream, :count])))

    def _close_blocks(self, streams: IntArray) -> None:
        done = streams[self._block[streams].sum(axis=1) >= BLOCK]
        if not len(done):
            return
        full = done[self._blocks[done] == BLOCKS]
        self._divergence[full, :-1] = self._divergence[full, 1:]
        self._blocks[full] -= 1
        counts = self._block[done]
        shares = counts / counts.sum(axis=1, keepdims=True)
        self._divergence[done, self._blocks[done]] = jensen_shannon(shares, self._expected[done])
        self._blocks[done] += 1
        self._block[done] = 0

    def arrays(self) -> dict[str, Array]:
        """Return the whole state."""
        return {
            "bank": np.frombuffer(self.bank.save(), np.uint8),
            "expected": self._expected.ravel(),
            "mark_index": self._mark_index.ravel(),
            "mark_ms": self._mark_ms.ravel(),
            "marks": self._marks,
            "block": self._block.ravel(),
            "divergence": self._divergence.ravel(),
            "blocks": self._blocks,
        }

    @classmethod
    def restored(cls, arrays: dict[str, NDArray[np.generic]], weight: ShapedWeight) -> Self:
        """Return the bank of saved arrays under a weight of now."""
        loaded = cls.__new__(cls)
        loaded.bank = RBOCPDBank.load(arrays["bank"].tobytes(), weight)
        streams = len(loaded.bank)

        def table(name: str) -> NDArray[np.generic]:
            return arrays[name].reshape(streams, -1).copy()

        loaded._expected = table("expected").astype(np.float64)
        loaded._mark_index, loaded._mark_ms = table("mark_index").astype(np.int64), table("mark_ms").astype(np.int64)
        loaded._block = table("block").astype(np.int64)
        loaded._divergence = table("divergence").astype(np.float64)
        loaded._marks = arrays["marks"].astype(np.int64)
        loaded._blocks = arrays["blocks"].astype(np.int64)
        return loaded


def jensen_shannon(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return the Jensen-Shannon distance of each row of two tables of shares: 0 alike, 1 disjoint.

    >>> jensen_shannon(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])).round(6).tolist()
    [1.0, 0.0]
    """
    middle = 0.5 * (p + q)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(r > 0.0, r * np.log2(r / middle), 0.0).sum(axis=1) for r in (p, q)]
    distance: FloatArray = np.sqrt(np.clip(0.5 * (terms[0] + terms[1]), 0.0, 1.0))
    return distance
