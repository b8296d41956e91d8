"""R-BOCPD written from its definition: losses summed over time, no closed form, every start, no bound on memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from monitoring.weights import AnytimeWeight, AnyWeight, InverseLengthWeight, ShapedWeight


@dataclass
class SlowRBOCPD:
    """Keeps all observations of the segment; ``update`` returns the estimated change and sets ``statistic``."""

    weight: AnyWeight
    categories: int = 2
    a: float = 1.0
    reseed: bool = True
    start: int = 0
    seen: int = 0
    xs: list[int] = field(default_factory=list)
    statistic: float = -math.inf

    def update(self, x: int) -> int | None:
        self.xs.append(x)
        self.seen += 1
        n = len(self.xs)
        prefix = self.losses(self.xs)
        best, self.statistic = 0, -math.inf
        for s in range(1, n):
            value = log_eta(self.weight, self.categories, s, n - s)
            value += -prefix[s - 1] - self.losses(self.xs[s:])[-1] + prefix[-1]
            if value > self.statistic:
                best, self.statistic = s, value
        if self.statistic <= 1e-9:
            return None
        change = self.start + best
        self.start, self.xs = (change, self.xs[best:]) if self.reseed else (self.seen, [])
        return change

    def losses(self, xs: list[int]) -> list[float]:
        """Cumulative log losses over time: before each observation x predicts (count of x + a) / (n + K a)."""
        total, counts, result = 0.0, [0] * self.categories, []
        for n, x in enumerate(xs):
            total -= math.log((counts[x] + self.a) / (n + self.categories * self.a))
            counts[x] += 1
            result.append(total)
        return result


def log_eta(weight: AnyWeight, k: int, n1: int, n2: int) -> float:
    """Log of the weights as their docstrings print them."""
    n = n1 + n2
    q = n1 * n2 / n
    match weight:
        case ShapedWeight():
            late = min(max(q, weight.knee), weight.ceiling) / weight.knee
            fallen = weight.fall ** (math.log(min(max(n / weight.horizon, 1), 8)) / math.log(8))
            return math.log(weight.scale * q**weight.exponent * late**weight.late_exponent / fallen)
        case InverseLengthWeight():
            return math.log(weight.scale / n)
        case AnytimeWeight():
            return math.log(weight.delta / (n1 * (n1 + 1) * math.comb(n + k - 1, k - 1)))
    d, a = weight.delta, weight.alpha
    b = -k / 12 - (k - 1) / 2 * math.log(2 * math.pi) + k / 2 * math.log(k)
    product = math.prod((n1 + i) * (n2 + i) / (n + i) for i in range(1, k))
    bracket = math.log(4 * a + 2) * d**2 / (4 * n * math.log((a + 3) * n))
    return math.log(product * math.exp(2 * b) / ((n1 * n2) ** ((k - 1) / 2) * math.factorial(k - 1)) * bracket**a)
