"""The test of Page and Hinkley, as river implements it: CUSUM against the running mean, both directions.

Page (Biometrika 1954), "Continuous Inspection Schemes"; Hinkley (Biometrika 1971).
"""

from __future__ import annotations

from typing import ClassVar

from monitoring.river_detector import RiverDetector, river_drift


class PageHinkley(RiverDetector):
    """River's Page-Hinkley, to compare with. It places no change: ``index`` is where it was detected.

    Parameters
    ----------
    delta
        Magnitude of changes that it tolerates, at least 0.
    threshold
        Of the cumulative deviation, greater than 0.
    """

    kind: ClassVar[str] = "page_hinkley"

    def __init__(self, delta: float = 0.005, threshold: float = 50.0) -> None:
        if not delta >= 0.0:
            raise ValueError(f"delta must be at least 0, got {delta}")
        if not threshold > 0.0:
            raise ValueError(f"threshold must be greater than 0, got {threshold}")
        super().__init__(river_drift().PageHinkley(delta=delta, threshold=threshold))

    def _after(self, x: float) -> tuple[int, float]:
        return 1, x
