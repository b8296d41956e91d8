"""Multinomial R-BOCPD with the anytime weight, compiled: a stand-in."""

from __future__ import annotations

import math

import numba
import numpy as np


def _update(symbol, count, totals, before, loglik, table, log_delta):
    """Add the candidate that begins at this symbol, take the symbol in, and return the greatest statistic."""
    K = len(totals)
    n1 = 0
    for o in range(K):
        before[count, o] = totals[o]
        n1 += totals[o]
    value = 0.0
    for o in range(K):
        value += table[totals[o]]
    loglik[count] = value - table[n1 + K - 1] + table[K - 1]
    if n1 > 0:
        loglik[count] -= math.log(n1 * (n1 + 1.0))
    totals[symbol] += 1
    n = n1 + 1
    anchor = table[K - 1] - table[n + K - 1]
    for o in range(K):
        anchor += table[totals[o]]
    choose = table[n + K - 1] - table[n] - table[K - 1]
    best = -np.inf
    for s in range(1, count + 1):
        value = loglik[s] + table[K - 1]
        n2 = 0
        for o in range(K):
            c = totals[o] - before[s, o]
            n2 += c
            value += table[c]
        value -= table[n2 + K - 1]
        best = max(best, value)
    return best - anchor - choose + log_delta


UPDATE = numba.njit(cache=True)(_update)
TABLE = np.array([math.lgamma(n + 1.0) for n in range(60_000)])
MOST = 1024


class Multinomial:
    def __init__(self, categories: int, delta: float) -> None:
        self.K, self.log_delta = categories, math.log(delta)
        self.totals = np.zeros(categories, np.int64)
        self.before = np.zeros((MOST, categories), np.int64)
        self.loglik = np.zeros(MOST)
        self.count = 0

    def reset(self) -> None:
        self.count = 0
        self.totals[:] = 0

    def update(self, symbol: int) -> bool:
        value = UPDATE(symbol, self.count, self.totals, self.before, self.loglik, TABLE, self.log_delta)
        self.count += 1
        if self.count == MOST:
            keep = np.r_[0 : MOST // 2 : 2, MOST // 2 : MOST]
            self.before[: len(keep)] = self.before[keep]
            self.loglik[: len(keep)] = self.loglik[keep]
            self.count = len(keep)
        return bool(value > 1e-9)

    def save(self) -> bytes:
        raise NotImplementedError

    def restore(self, data: bytes) -> None:
        raise NotImplementedError
