"""Ranking metrics of a day that is never held whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.recommender.two_tower import Float32
from training.sessions.metrics import Ranking, ranking

#: Bits of a score that are kept for the AUC over all rows: sign, exponent and 11 of 23 bits of the fraction.
_BITS = 20


class StreamedRanking:
    """The metrics of ``training.sessions.metrics`` from chunks of whole sessions.

    Those of sessions are exact. The AUC over all rows is that of scores rounded to 11 bits, where ties count half:
    counts of labels by rounded score take 16 MB, however many rows come.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, 1 << _BITS), np.int64)
        self._rows = self._sessions = self._mixed = self._with_positive = 0
        self._sums = np.zeros(4)

    def add(self, labels: Float32, scores: Float32, session: NDArray[np.int32]) -> None:
        """Add the rows of some sessions; each of shape (n,)."""
        if len(labels) == 0:
            return
        found = ranking(labels, scores, session)
        with_positive = len(np.unique(session[labels > 0.0]))
        self._rows += found.rows
        self._sessions += found.sessions
        self._mixed += found.mixed
        self._with_positive += with_positive
        weights = (found.sessions, found.mixed, found.sessions, with_positive)
        values = (found.gauc, found.gauc_mixed, found.ndcg, found.mrr)
        self._sums += [w * v if w else 0.0 for w, v in zip(weights, values, strict=True)]
        for label in (0, 1):
            places = _rounded(scores[(labels > 0.0) == bool(label)])
            self._counts[label] += np.bincount(places, minlength=1 << _BITS)

    def result(self) -> Ranking:
        """Return the metrics of all rows that were added."""
        negatives, positives = self._counts.astype(np.float64)
        pairs = negatives.sum() * positives.sum()
        below = np.cumsum(negatives) - negatives
        auc = float(((below + negatives / 2.0) * positives).sum() / pairs) if pairs else float("nan")
        weights = (self._sessions, self._mixed, self._sessions, self._with_positive)
        means = [total / w if w else float("nan") for total, w in zip(self._sums.tolist(), weights, strict=True)]
        return Ranking(self._rows, self._sessions, self._mixed, auc, *means)


def _rounded(scores: Float32) -> NDArray[np.int64]:
    """Return places in the order of the scores: the upper bits of a float, with negative ones turned round."""
    raw = np.ascontiguousarray(scores, np.float32).view(np.uint32)
    ordered = np.where(raw >> 31, ~raw, raw | np.uint32(1 << 31))
    return (ordered >> np.uint32(32 - _BITS)).astype(np.int64)
