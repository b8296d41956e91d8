"""ADWIN, adaptive windowing, as river implements it.

Bifet and Gavalda (SDM 2007), "Learning from Time-Changing Data with Adaptive Windowing".
"""

from __future__ import annotations

from typing import ClassVar

from monitoring.river_detector import RiverDetector, river_drift


class ADWIN(RiverDetector):
    """River's ADWIN, to compare with. The change is placed where its window was cut.

    Parameters
    ----------
    delta
        Its confidence, in (0, 1).
    clock
        Observations between two tests.
    """

    kind: ClassVar[str] = "adwin"

    def __init__(self, delta: float = 0.002, clock: int = 32) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta must lie between 0 and 1, got {delta}")
        if clock < 1:
            raise ValueError(f"clock must be at least 1, got {clock}")
        super().__init__(river_drift().ADWIN(delta=delta, clock=clock))

    def _after(self, x: float) -> tuple[int, float]:
        return int(self._peer.width), float(self._peer.total)
