"""What R-BOCPD-UCRL2 asks of a change detector. The detectors themselves belong to another floor and are handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ChangeDetector(Protocol):
    """Watches one stream of symbols 0, 1, ..., K - 1 for a change of their distribution."""

    def update(self, symbol: int) -> bool:
        """Take the next symbol; say whether the distribution has changed."""

    def reset(self) -> None:
        """Forget every symbol."""

    def save(self) -> bytes:
        """Return the whole state."""

    def restore(self, data: bytes) -> None:
        """Take up a saved state and go on bit for bit as the detector that wrote it."""


#: Makes a detector for K categories whose probability of any false alarm, ever, is at most delta: ``(K, delta)``.
DetectorFactory = Callable[[int, float], ChangeDetector]
