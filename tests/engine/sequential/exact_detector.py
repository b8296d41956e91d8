"""Multinomial R-BOCPD with the anytime weight, as its definition says it: no pruning, every observation kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOG_FACTORIAL = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, 20_000.0)))])


class ExactDetector:
    """Alarms iff for some split of the n observations of a segment into n1 and n2, with the counts N of K categories::

    log delta - log n1 (n1 + 1) - log C(n + K - 1, K - 1) - L(first) - L(second) + L(all) > 0
    -L = log (K - 1)! + sum_o log N_o! - log (n + K - 1)!
    """

    def __init__(self, categories: int, delta: float) -> None:
        self.categories = categories
        self.delta = delta
        self.symbols: list[int] = []

    def update(self, symbol: int) -> bool:
        self.symbols.append(symbol)
        K, n = self.categories, len(self.symbols)
        counts = np.zeros((n + 1, K), np.int64)
        counts[np.arange(1, n + 1), self.symbols] = 1
        first = counts.cumsum(axis=0)[1:-1]
        every = counts.sum(axis=0)
        n1 = np.arange(1, n)
        f = LOG_FACTORIAL
        log_eta = np.log(self.delta / (n1 * (n1 + 1.0))) - (f[n + K - 1] - f[n] - f[K - 1])
        statistic = log_eta + self._evidence(first) + self._evidence(every - first) - self._evidence(every)
        return bool((statistic > 1e-9).any())

    @staticmethod
    def _evidence(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        K, n = counts.shape[-1], counts.sum(axis=-1)
        value: NDArray[np.float64] = (
            LOG_FACTORIAL[K - 1] + LOG_FACTORIAL[counts].sum(axis=-1) - LOG_FACTORIAL[n + K - 1]
        )
        return value

    def reset(self) -> None:
        self.symbols.clear()

    def save(self) -> bytes:
        return bytes(self.symbols)

    def restore(self, data: bytes) -> None:
        self.symbols = list(data)
