"""R-BOCPD written from its definition: losses summed over time, no closed form, every start, no bound on memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from monitoring.weights import ShapedWeight, Weight


@dataclass
class SlowRBOCPD:
    """Keeps all observations of the segment; ``update`` returns the estimated change and sets ``statistic``."""

    weight: Weight = field(default_factory=ShapedWeight)
    start: int = 0
    xs: list[int] = field(default_factory=list)
    statistic: float = -math.inf

    def update(self, x: int) -> int | None:
        self.xs.append(x)
        n = len(self.xs)
        prefix = losses(self.xs)
        best, self.statistic = 0, -math.inf
        for s in range(1, n):
            value = self._log_eta(s, n - s) - prefix[s - 1] - losses(self.xs[s:])[-1] + prefix[-1]
            if value > self.statistic:
                best, self.statistic = s, value
        if self.statistic <= 1e-9:
            return None
        self.start += best
        self.xs = self.xs[best:]
        return self.start

    def _log_eta(self, n1: int, n2: int) -> float:
        n = n1 + n2
        if isinstance(self.weight, ShapedWeight):
            return math.log(self.weight.scale * (n1 * n2 / n) ** self.weight.exponent)
        return math.log(self.weight.delta / (n1 * (n1 + 1) * (n + 1)))


def losses(xs: list[int]) -> list[float]:
    """Cumulative log losses of Laplace's rule over time: before each observation it predicts (ones + 1) / (n + 2)."""
    total, ones, result = 0.0, 0, []
    for n, x in enumerate(xs):
        one = (ones + 1) / (n + 2)
        total -= math.log(one if x else 1.0 - one)
        ones += x
        result.append(total)
    return result
