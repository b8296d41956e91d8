"""The weight eta of a change hypothesis in R-BOCPD: what sets its false-alarm level.

With r the start of the segment, s the supposed start of the new one and t now, let n1 = s - r, n2 = t - s + 1 and
n = n1 + n2. Every weight here splits, log eta = log_before(n1) + log_after(n2) + log_total(n), in nats, so that the
first part is computed once for each s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monitoring.detector import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class ShapedWeight:
    """eta = scale * (n1 n2 / n) ** exponent: quick to find changes, its false-alarm level measured, not proved.

    The shape takes back the penalty by which a Bayes factor prefers early and late splits, so that at one
    false-alarm level small changes are found sooner than with the 1/n of Alami et al. (2020). With 1/n every
    second stationary stream raises an alarm within 1 000 observations; with the default here about one of a hundred
    does within 10 000, and fewer where the rate is close to 0 or 1 (``docs/drift.md``).

    Parameters
    ----------
    scale
        c > 0; false alarms grow about in proportion to it.
    exponent
        g >= 0.
    """

    scale: float = 2.5e-7
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale must be a positive number, got {self.scale}")
        if not 0.0 <= self.exponent < math.inf:
            raise ValueError(f"exponent must be a number >= 0, got {self.exponent}")

    def log_before(self, n1: int) -> float:
        """Return log c + g log n1."""
        return math.log(self.scale) + self.exponent * math.log(n1)

    def log_after(self, n2: IntArray) -> FloatArray:
        """Return g log n2."""
        result: FloatArray = np.log(n2)
        result *= self.exponent
        return result

    def log_total(self, n: int) -> float:
        """Return -g log n."""
        return -self.exponent * math.log(n)


@dataclass(frozen=True, slots=True)
class AnytimeWeight:
    """eta = delta / (n1 (n1 + 1) (n + 1)): P(any alarm, ever, on a stationary stream) <= delta, proved; slower.

    Fix s. exp(-L(r:s-1) - L(s:t)) / P(x_r..x_t) is a martingale of mean 1 under any constant rate, because the
    numerator is a sequence of probabilities given the past. The true likelihood P is at most (n + 1) exp(-L(r:t)),
    so an alarm forces the martingale above n1 (n1 + 1) / delta. The 1 / (n1 (n1 + 1)) sum to 1 over s, and Ville's
    inequality bounds the chance that their mixture ever exceeds 1 / delta. It needs no horizon and holds for every
    subset of the s. It counts from the start of a segment; a segment that was re-seeded at an estimated change
    begins at a position chosen from the data, for which the statement is no longer exact.

    Parameters
    ----------
    delta
        The bound, in (0, 1). For S streams together use delta / S.
    """

    delta: float

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta must lie between 0 and 1, got {self.delta}")

    def log_before(self, n1: int) -> float:
        """Return log delta - log n1 (n1 + 1)."""
        return math.log(self.delta) - math.log(n1 * (n1 + 1))

    def log_after(self, n2: IntArray) -> float:
        """Return 0: this weight does not look at n2."""
        return 0.0

    def log_total(self, n: int) -> float:
        """Return -log(n + 1)."""
        return -math.log(n + 1.0)


Weight = ShapedWeight | AnytimeWeight
