"""What the adapters of river's detectors share. River is the extra ``drift-peers``, imported when one is made."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from monitoring.detector import Change, FloatArray, IntArray


class RiverDetector(ABC):
    """A detector of river behind the protocol of ``monitoring.detector``: numbers in [0, 1], one alarm at a time.

    River forgets everything at the observation after an alarm, so a new segment begins empty after ``detected``. The
    evidence is the absolute difference of the two means, in units of the observations. It cannot be saved: river offers
    a pickle alone, which can run anything when it is read.
    """

    kind: ClassVar[str]

    def __init__(self, peer: Any) -> None:
        self._peer = peer
        self._seen = 0
        self._run_start = 0
        self._total = 0.0  # of the segment

    @property
    def categories(self) -> None:
        """None: observations are numbers."""
        return

    @property
    def seen(self) -> int:
        """Observations so far."""
        return self._seen

    @property
    def run_start(self) -> int:
        """Position at which the current segment begins."""
        return self._run_start

    @property
    def run_length(self) -> int:
        """Observations of the current segment."""
        return self._seen - self._run_start

    @property
    def forecasters(self) -> int:
        """One: river tells no others."""
        return 1

    @property
    def most_forecasters(self) -> int:
        """One."""
        return 1

    @property
    def starts(self) -> IntArray:
        """The start of the segment."""
        return np.array([self._run_start])

    def update(self, x: float) -> Change | None:
        """Take the next observation; return the change that it reveals, if any."""
        return self._update(float(_numbers(x)))

    def update_many(self, xs: ArrayLike) -> list[Change]:
        """Take observations in a row; return the changes that they reveal."""
        return [change for x in _numbers(xs).tolist() if (change := self._update(x)) is not None]

    def _update(self, x: float) -> Change | None:
        self._peer.update(x)
        self._seen += 1
        self._total += x
        if not self._peer.drift_detected:
            return None
        count_after, total_after = self._after(x)
        count_before = self.run_length - count_after
        mean_before, mean_after = (self._total - total_after) / count_before, total_after / count_after
        change = Change(
            index=self._seen - count_after,
            detected=self._seen - 1,
            count_before=count_before,
            count_after=count_after,
            mean_before=mean_before,
            mean_after=mean_after,
            evidence=abs(mean_after - mean_before),
        )
        self._run_start, self._total = self._seen, 0.0
        return change

    @abstractmethod
    def _after(self, x: float) -> tuple[int, float]:
        """Return count and sum of the observations since the change; ``x`` is the last one."""


def river_drift() -> Any:
    """Return the module ``river.drift``; raises ``ImportError`` with what to install."""
    try:
        return importlib.import_module("river.drift")
    except ImportError as error:
        raise ImportError("this detector is river's: pip install 'leeway[drift-peers]'") from error


def _numbers(xs: ArrayLike) -> FloatArray:
    given = np.asarray(xs, np.float64)
    wrong = ~((given >= 0.0) & (given <= 1.0))
    if np.any(wrong):
        raise ValueError(f"an observation must be a number in [0, 1], got {given[wrong][0] if given.ndim else given}")
    return given
