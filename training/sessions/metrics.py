"""How well scores rank the rows of sessions: AUC, group AUC both ways, NDCG and mean reciprocal rank.

Equal scores are in no order: every metric is its mean over all orders of the rows that tie. No session weighs more
than another, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The metrics of some scored sessions.

    Parameters
    ----------
    rows, sessions, mixed
        How many rows and sessions, and sessions with both labels.
    auc
        Over all rows; NaN where they have one label.
    gauc
        Mean AUC of the sessions, where one with a single label counts 0.5.
    gauc_mixed
        Mean AUC of the mixed sessions alone; NaN where there is none.
    ndcg
        Mean NDCG@5, where a session without a positive counts 1.
    mrr
        Mean reciprocal rank of the first positive, over the sessions that have one; NaN where none has.
    """

    rows: int
    sessions: int
    mixed: int
    auc: float
    gauc: float
    gauc_mixed: float
    ndcg: float
    mrr: float


def ranking(labels: Any, scores: Any, session: Any) -> Ranking:
    """Return all metrics.

    Parameters
    ----------
    labels : array_like, shape (n,)
        0 or 1.
    scores : array_like, shape (n,)
        Higher for more likely labels; finite.
    session : array_like of int, shape (n,)
        Session of each row; its rows need not stand together.

    Raises
    ------
    ValueError
        Shapes do not agree, a label is neither 0 nor 1, or a score is not finite.

    Examples
    --------
    >>> found = ranking([0, 1, 0, 0], [0.1, 0.9, 0.3, 0.3], [0, 0, 0, 1])
    >>> found.gauc, found.gauc_mixed, found.mrr
    (0.75, 1.0, 1.0)
    """
    ordered = _Ordered(labels, scores, session)
    each = ordered.auc()
    mixed = ~np.isnan(each)
    reciprocal = ordered.reciprocal_rank()
    return Ranking(
        rows=len(ordered.labels),
        sessions=len(each),
        mixed=int(mixed.sum()),
        auc=auc(labels, scores),
        gauc=_mean(np.where(mixed, each, 0.5)),
        gauc_mixed=_mean(each[mixed]),
        ndcg=_mean(ordered.ndcg(5)),
        mrr=_mean(reciprocal[~np.isnan(reciprocal)]),
    )


def auc(labels: Any, scores: Any) -> float:
    """Return the probability that a positive scores above a negative, ties counting half; NaN without both."""
    ordered = _Ordered(labels, scores, np.zeros(np.shape(labels), dtype=np.int64))
    return float(ordered.auc()[0]) if len(ordered.labels) else float("nan")


def gauc(labels: Any, scores: Any, session: Any, *, mixed_only: bool = False) -> float:
    """Return the mean AUC of the sessions; one with a single label counts 0.5, or not at all if ``mixed_only``."""
    each = _Ordered(labels, scores, session).auc()
    return _mean(each[~np.isnan(each)] if mixed_only else np.where(np.isnan(each), 0.5, each))


def ndcg(labels: Any, scores: Any, session: Any, k: int = 5) -> float:
    """Return the mean NDCG@k of the sessions; one without a positive counts 1."""
    return _mean(_Ordered(labels, scores, session).ndcg(k))


def mrr(labels: Any, scores: Any, session: Any) -> float:
    """Return the mean of 1 / (rank of the first positive) over the sessions that have a positive."""
    each = _Ordered(labels, scores, session).reciprocal_rank()
    return _mean(each[~np.isnan(each)])


class _Ordered:
    """The rows by session, and within it by falling score, with the groups of rows that tie."""

    def __init__(self, labels: Any, scores: Any, session: Any) -> None:
        y, s, g = np.asarray(labels, np.float64), np.asarray(scores, np.float64), np.asarray(session)
        if y.ndim != 1 or y.shape != s.shape or y.shape != g.shape:
            raise ValueError(f"labels {y.shape}, scores {s.shape} and session {g.shape} must be rows of one length")
        if not np.isin(y, (0.0, 1.0)).all():
            raise ValueError(f"labels: must be 0 or 1, got {y[~np.isin(y, (0.0, 1.0))][0]}")
        if not np.isfinite(s).all():
            raise ValueError(f"scores: row {int(np.flatnonzero(~np.isfinite(s))[0])} has {s[~np.isfinite(s)][0]}")
        order = np.lexsort((-s, g))
        self.labels, s, g = y[order], s[order], g[order]
        first = np.ones(len(y), dtype=np.bool_)
        first[1:] = g[1:] != g[:-1]
        self.starts = np.flatnonzero(first)  # of each session
        self.session = np.cumsum(first) - 1
        fresh = first.copy()
        fresh[1:] |= s[1:] != s[:-1]
        self.tie = np.cumsum(fresh) - 1
        self.tie_starts = np.flatnonzero(fresh)
        self.tie_sizes = np.diff(np.append(self.tie_starts, len(y)))
        self.tie_positives = self._sums(self.labels, self.tie_starts)
        self.rank = np.arange(len(y)) - self.starts[self.session]  # from 0, ties in any order
        self.positives = self._sums(self.labels, self.starts)
        self.sizes = np.diff(np.append(self.starts, len(y)))

    @staticmethod
    def _sums(values: Float64, starts: Int64) -> Float64:
        return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)

    def auc(self) -> Float64:
        """Return the AUC of each session, NaN where it has one label (Mann and Whitney 1947)."""
        # Of a tie all rows have the mean of its ranks; ranks from below, from 1.
        middle = self.rank[self.tie_starts] + (self.tie_sizes - 1) / 2.0
        below = self.sizes[self.session] - middle[self.tie]
        ranks = self._sums(below * self.labels, self.starts)
        pairs = self.positives * (self.sizes - self.positives)
        wins = ranks - self.positives * (self.positives + 1.0) / 2.0
        each: Float64 = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0.0)
        return each

    def ndcg(self, k: int) -> Float64:
        """Return the NDCG@k of each session; ties as in McSherry and Najork (2008)."""
        discount = np.where(self.rank < k, 1.0 / np.log2(self.rank + 2.0), 0.0)
        gain = (self.tie_positives / self.tie_sizes)[self.tie]
        found = self._sums(discount * gain, self.starts)
        ideal = self._sums(discount * (self.rank < self.positives[self.session]), self.starts)
        each: Float64 = np.divide(found, ideal, out=np.ones(len(ideal)), where=ideal > 0.0)
        return each

    def reciprocal_rank(self) -> Float64:
        """Return the mean of 1 / (rank of the first positive) of each session, NaN where it has none."""
        # Only the first tie with a positive counts. Of its g rows p are positive; the first j of a random order are
        # all negative with probability C(g - j, p) / C(g, p).
        holding = np.flatnonzero(self.tie_positives > 0.0)
        owner = self.session[self.tie_starts[holding]]
        holding = holding[np.append(True, owner[1:] != owner[:-1])[: len(holding)]]
        counts = np.zeros(len(self.tie_starts), dtype=np.bool_)
        counts[holding] = True
        rows = np.flatnonzero(counts[self.tie])
        j = rows - self.tie_starts[self.tie[rows]]
        g, p = self.tie_sizes[self.tie[rows]].astype(np.float64), self.tie_positives[self.tie[rows]]
        here = _all_negative(j, g, p) - _all_negative(j + 1, g, p)
        each = np.zeros(len(self.starts))
        np.add.at(each, self.session[rows], here / (self.rank[rows] + 1.0))
        each[self.positives == 0.0] = np.nan
        return each


def _all_negative(j: Int64, g: Float64, p: Float64) -> Float64:
    left = g - j - p
    inside = left >= 0.0
    rest = np.where(inside, left, 0.0)
    log = gammaln(rest + p + 1.0) - gammaln(rest + 1.0) - gammaln(g + 1.0) + gammaln(g - p + 1.0)
    chance: Float64 = np.where(inside, np.exp(log), 0.0)
    return chance


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")
