"""R-BOCPD: restarted Bayesian online change-point detection for a stream of zeros and ones.

Alami, Maillard, Feraud (ICML 2020), "Restarted Bayesian Online Change-point Detector achieves Optimal Detection
Delay", in the form of Alami (PMLR 232, 2023), eqs. (11) and (22). A *forecaster* s predicts with Laplace's rule
from the observations since s. Its loss over x_s..x_t with k ones among n observations is, in closed form,

    L(s:t) = -log( k! (n-k)! / (n+1)! ).

With the *anchor* r, the start of the segment, there is a change at t iff for some s in (r, t]

    log eta(r,s,t) - L(r:s-1) - L(s:t) + L(r:t) > 0,

the log Bayes factor of "two segments, split at s" against "one", plus the log weight of ``monitoring.weights``.

Where the text and this file differ, and why:

- Evaluated in closed form. The recursion as printed leaves out the first loss of a new forecaster, and then
  restarts every few observations.
- The change is reported at the s that maximises the statistic, not at the time of the alarm, and the new segment
  is *re-seeded*: it begins at that s and keeps the observations since. In the papers it begins empty after the
  alarm, which forgets exactly the observations that revealed the change.
- Two hypotheses can explain a short segment equally well; rounding must not decide, so "> 0" is "> 1e-9".
"""

from __future__ import annotations

import math
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from monitoring.detector import Change, FloatArray, IntArray
from monitoring.log_factorial import log_factorial
from monitoring.state import decode, encode
from monitoring.weights import AnytimeWeight, ShapedWeight, Weight

_KIND = "rbocpd/1"
_TIE = 1e-9
_DEFAULT_WEIGHT = ShapedWeight()
_WEIGHTS = {kind.__name__: kind for kind in (ShapedWeight, AnytimeWeight)}


class RBOCPD:
    """Bernoulli R-BOCPD over all possible change points, as one array operation per observation.

    Exact while the segment has at most ``max_candidates`` observations after its first. Beyond, candidates are
    thinned, the older the more: memory and time stay bounded, false alarms cannot become more (an alarm is a union
    over candidates), and an old change is located a little less precisely. The anchor is never dropped. An update
    costs about 35 microseconds at 4 000 candidates.

    Parameters
    ----------
    weight
        What sets the false-alarm level.
    max_candidates
        Most change points that are considered at a time, at least 8.

    Examples
    --------
    >>> detector = RBOCPD()
    >>> changes = [c for x in [1] * 200 + [0] * 50 if (c := detector.update(x))]
    >>> [(c.index, c.count_before, c.mean_before, c.mean_after) for c in changes]
    [(200, 200, 1.0, 0.0)]
    >>> detector.run_start  # the new segment begins at the change
    200
    """

    def __init__(self, weight: Weight = _DEFAULT_WEIGHT, max_candidates: int = 4096) -> None:
        if max_candidates < 8:
            raise ValueError(f"max_candidates must be at least 8, got {max_candidates}")
        self._weight = weight
        self._max = max_candidates
        self._seen = 0
        self._run_start = 0
        self._total_ones = 0
        self._total_zeros = 0
        # One row for each forecaster, the anchor in row 0: ones and zeros of the segment before its start, and the
        # part of its statistic that no later observation changes (log eta's n1 part minus L(r:s-1)).
        self._rows = 0
        self._ones: IntArray = np.empty(64, np.int64)
        self._zeros: IntArray = np.empty(64, np.int64)
        self._before: FloatArray = np.empty(64, np.float64)

    @property
    def seen(self) -> int:
        """Observations so far."""
        return self._seen

    @property
    def run_start(self) -> int:
        """Position at which the current segment begins (the anchor r)."""
        return self._run_start

    @property
    def run_length(self) -> int:
        """Observations of the current segment."""
        return self._seen - self._run_start

    @property
    def forecasters(self) -> int:
        """Rows held: the anchor and its candidates."""
        return self._rows

    @property
    def starts(self) -> IntArray:
        """Starts of the forecasters in ascending order, the anchor first."""
        result: IntArray = self._run_start + self._ones[: self._rows] + self._zeros[: self._rows]
        return result

    def update(self, x: int) -> Change | None:
        """Take the next observation, 0 or 1; return the change that it reveals, if any."""
        if x not in (0, 1):
            raise ValueError(f"an observation must be 0 or 1, got {x!r}")
        self._append()
        self._seen += 1
        if x:
            self._total_ones += 1
        else:
            self._total_zeros += 1
        best, evidence = self._statistic()
        if not evidence > _TIE:
            return None
        return self._restart(best, evidence)

    def statistic(self) -> float:
        """Return the left side of the test now: the greatest weighted log Bayes factor of a change, in nats.

        Minus infinity before the second observation of a segment. Positive values are alarms.
        """
        return self._statistic()[1]

    def _statistic(self) -> tuple[int, float]:
        """Return row and value of the greatest statistic over the candidates."""
        if self._rows < 2:
            return 0, -np.inf
        n = self.run_length
        ones = self._total_ones - self._ones[1 : self._rows]
        zeros = self._total_zeros - self._zeros[1 : self._rows]
        after = ones + zeros
        value = log_factorial(ones, n + 1)
        value += log_factorial(zeros, n + 1)
        value -= log_factorial(after + 1, n + 1)
        value += self._weight.log_after(after)
        value += self._before[1 : self._rows]
        best = int(value.argmax())
        anchor = _log_likelihood(self._total_ones, self._total_zeros)
        return best + 1, float(value[best]) + self._weight.log_total(n) - anchor

    def _append(self) -> None:
        """Add the forecaster that begins at the next observation."""
        while self._rows > self._max:
            self._thin()
        row = self._rows
        if row == len(self._ones):
            self._grow()
        self._ones[row], self._zeros[row] = self._total_ones, self._total_zeros
        self._before[row] = self._log_before(self._total_ones, self._total_zeros)
        self._rows = row + 1

    def _grow(self) -> None:
        self._ones, self._zeros = (np.concatenate([c, np.empty_like(c)]) for c in (self._ones, self._zeros))
        self._before = np.concatenate([self._before, np.empty_like(self._before)])

    def _log_before(self, ones: int, zeros: int) -> float:
        """Part of a candidate's statistic that later observations leave alone; 0 for the anchor, which has none."""
        n1 = ones + zeros
        return self._weight.log_before(n1) + _log_likelihood(ones, zeros) if n1 else 0.0

    def _fill_before(self) -> None:
        # Number by number, as in `_append`: array logarithms may round differently, and a restored detector would
        # then no longer be the same bit for bit.
        rows = zip(self._ones[: self._rows].tolist(), self._zeros[: self._rows].tolist(), strict=True)
        self._before[: self._rows] = [self._log_before(ones, zeros) for ones, zeros in rows]

    def _thin(self) -> None:
        """Drop a quarter of the candidates: of every other one, those with the nearest neighbours for their age.

        The first time that is every other one of the older half. In the long run the distance between candidates
        grows in proportion to their age, so that a change of any age is considered within a small share of it.
        """
        starts = self.starts
        inner = np.arange(1, self._rows - 1, 2)
        room = (starts[inner + 1] - starts[inner - 1]) / (self._seen - starts[inner])
        keep = np.ones(self._rows, np.bool_)
        keep[inner[np.argsort(room, kind="stable")[: len(inner) // 2]]] = False
        self._keep(keep)

    def _keep(self, keep: NDArray[np.bool_] | slice) -> None:
        for column in (self._ones, self._zeros, self._before):
            kept = column[: self._rows][keep]
            column[: len(kept)] = kept.copy()
        self._rows = len(kept)

    def _restart(self, row: int, evidence: float) -> Change:
        """Report the change at a row and let the segment begin there."""
        ones, zeros = int(self._ones[row]), int(self._zeros[row])
        before, after = ones + zeros, self.run_length - ones - zeros
        change = Change(
            index=self._run_start + before,
            detected=self._seen - 1,
            count_before=before,
            count_after=after,
            mean_before=ones / before,
            mean_after=(self._total_ones - ones) / after,
            evidence=evidence,
        )
        self._run_start = change.index
        self._total_ones -= ones
        self._total_zeros -= zeros
        self._keep(slice(row, None))
        self._ones[: self._rows] -= ones
        self._zeros[: self._rows] -= zeros
        self._fill_before()
        return change

    def save(self) -> bytes:
        """Return the whole state, the weight included."""
        fields = {
            "weight": type(self._weight).__name__,
            **asdict(self._weight),
            "max_candidates": self._max,
            "seen": self._seen,
            "run_start": self._run_start,
            "total_ones": self._total_ones,
            "total_zeros": self._total_zeros,
        }
        return encode(_KIND, fields, {"ones": self._ones[: self._rows], "zeros": self._zeros[: self._rows]})

    @classmethod
    def load(cls, data: bytes, weight: Weight | None = None, max_candidates: int | None = None) -> Self:
        """Return the detector that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged.

        ``weight`` and ``max_candidates`` replace what was saved: the configuration may have changed since.
        """
        fields, arrays = decode(_KIND, data)
        if weight is None:
            kind = _WEIGHTS[fields["weight"]]
            weight = kind(**{field.name: fields[field.name] for field in dataclass_fields(kind)})
        detector = cls(weight, fields["max_candidates"] if max_candidates is None else max_candidates)
        detector._seen, detector._run_start = fields["seen"], fields["run_start"]
        detector._total_ones, detector._total_zeros = fields["total_ones"], fields["total_zeros"]
        detector._rows = rows = len(arrays["ones"])
        while len(detector._ones) < rows:
            detector._grow()
        detector._ones[:rows], detector._zeros[:rows] = arrays["ones"], arrays["zeros"]
        detector._fill_before()
        return detector


def _log_likelihood(ones: int, zeros: int) -> float:
    """-L of a segment with these counts, in nats: log( ones! zeros! / (ones + zeros + 1)! )."""
    return math.lgamma(ones + 1.0) + math.lgamma(zeros + 1.0) - math.lgamma(ones + zeros + 2.0)
