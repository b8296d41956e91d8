"""What a change detector on one stream of observations does, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        Their means; of categories, the mean of their numbers.
    evidence
        By how much the detector's statistic exceeds its threshold; positive. For the Bayesian detectors it is the log
        odds of "a change at ``index``" against "no change", in nats; for others see there.
    counts_before, counts_after
        How often each category occurred in the old and the new segment; empty where the detector does not know.
    """

    index: int
    detected: int
    count_before: int
    count_after: int
    mean_before: float
    mean_after: float
    evidence: float
    counts_before: tuple[int, ...] = ()
    counts_after: tuple[int, ...] = ()


@runtime_checkable
class Detector(Protocol):
    """A change detector: a pure state machine, one observation at a time.

    Observations are categories 0, 1, .., ``categories`` - 1, or numbers in [0, 1] where ``categories`` is None.
    """

    #: Its name in ``monitoring.detectors.DETECTORS``.
    kind: ClassVar[str]

    @property
    def categories(self) -> int | None:
        """How many values an observation can have (K); None if it is a number in [0, 1]."""

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
    def most_forecasters(self) -> int | None:
        """How many can be held at this length of the stream; None if there is no bound."""

    @property
    def starts(self) -> IntArray:
        """Those positions in ascending order, ``run_start`` first: ``Change.index`` was one of them, or is detected."""

    def update(self, x: float) -> Change | None:
        """Take the next observation; return the change that it reveals, if any.

        Raises ``ValueError`` for what is no observation, and is then as it was before.
        """

    def update_many(self, xs: ArrayLike) -> list[Change]:
        """Take observations in a row; return the changes that they reveal. The same as one ``update`` after another.

        Raises ``ValueError`` if any of them is no observation, and is then as it was before.
        """


@runtime_checkable
class SavedDetector(Detector, Protocol):
    """A detector whose state can be kept, as every one can that is part of a monitor."""

    def save(self) -> bytes:
        """Return the whole state. A detector loaded from it goes on bit for bit as this one would."""

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the detector that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged."""
