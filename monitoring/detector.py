"""What a change detector on one stream of observations does, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a detector found.

    Positions count the observations of the stream from 0.

    Parameters
    ----------
    index
        Estimated position of the first observation after the change (s* in the literature).
    detected
        Position of the observation at which the change was found; never before ``index``.
    count_before, count_after
        Observations of the old segment, and of the new one up to ``detected``.
    mean_before, mean_after
        Their means.
    evidence
        Log Bayes factor of "a change at ``index``" against "no change", minus its threshold, in nats; positive.
    """

    index: int
    detected: int
    count_before: int
    count_after: int
    mean_before: float
    mean_after: float
    evidence: float


@runtime_checkable
class Detector(Protocol):
    """A change detector: a pure state machine, one observation at a time."""

    @property
    def seen(self) -> int:
        """Observations so far."""

    @property
    def run_start(self) -> int:
        """Position at which the current segment begins."""

    @property
    def run_length(self) -> int:
        """Observations of the current segment."""

    @property
    def forecasters(self) -> int:
        """How many positions are held as possible starts, that of the current segment included."""

    @property
    def starts(self) -> IntArray:
        """Those positions in ascending order, ``run_start`` first: ``Change.index`` is always one of them."""

    def update(self, x: int) -> Change | None:
        """Take the next observation; return the change that it reveals, if any.

        After a change the current segment begins at ``Change.index``.
        """

    def save(self) -> bytes:
        """Return the whole state. A detector loaded from it goes on bit for bit as this one would."""

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the detector that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged."""
