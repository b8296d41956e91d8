"""R-BOCPD of ``monitoring`` as the change detector that ``engine.sequential`` asks for."""

from __future__ import annotations

from monitoring.rbocpd import RBOCPD
from monitoring.weights import AnytimeWeight


class PairDetector:
    """R-BOCPD with the proved weight, which forgets everything at an alarm.

    Parameters
    ----------
    categories
        K; symbols are 0..K-1.
    delta
        Bound on the probability of any false alarm, ever.
    """

    def __init__(self, categories: int, delta: float) -> None:
        self._categories = categories
        self._weight = AnytimeWeight(delta)
        self.reset()

    def update(self, symbol: int) -> bool:
        """Take the next symbol; say whether the distribution has changed."""
        return self._detector.update(symbol) is not None

    def reset(self) -> None:
        """Forget every symbol."""
        # Not re-seeded: the bound is proved for segments that begin at a time not chosen from the data.
        self._detector = RBOCPD(self._weight, categories=self._categories, reseed=False)

    def save(self) -> bytes:
        """Return the whole state."""
        return self._detector.save()

    def restore(self, data: bytes) -> None:
        """Take up a saved state; raises ``SnapshotError`` where it is damaged or of another kind."""
        self._detector = RBOCPD.load(data, self._weight)
