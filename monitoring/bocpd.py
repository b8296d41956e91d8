"""BOCPD: Bayesian online change-point detection for zeros and ones or K categories, declared at a drop of the MAP run.

Adams and MacKay (2007), "Bayesian Online Changepoint Detection", arXiv 0710.3742, with a constant hazard h and the
Dirichlet-multinomial predictor of Laplace (Beta-Bernoulli for K = 2). With P(r) the posterior of the current run's
start r,

    P(r) <- P(r) PRED(x | the run's counts) (1 - h),    P(the run begins after x) <- h sum_r P(r) PRED(x | ..).

The paper declares no changes. Here one is declared when the most probable start lies after the start that was declared
last; starts before it are then dropped. The chance that a run has length 0 is h whatever the data, so it is no alarm.

Memory is bounded: beyond ``max_runs`` starts the least probable one is dropped, but never the declared one.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from engine.errors import SnapshotError
from monitoring.compiled import compiled
from monitoring.detector import Change, FloatArray, IntArray
from monitoring.observations import categories_of
from monitoring.state import decode, encode

_KIND = "bocpd/1"
_EVENTS = 256
_TIE = 1e-9


class BOCPD:
    """Adams and MacKay's detector on one stream, to compare with: its false alarms grow with the hazard, uncalibrated.

    Parameters
    ----------
    hazard
        h: chance of a change at each observation, in (0, 1/2).
    categories
        K >= 2; observations are 0..K-1.
    max_runs
        Most starts held, at least 8.

    Examples
    --------
    >>> [(c.index, c.mean_before, c.mean_after) for c in BOCPD().update_many([1] * 200 + [0] * 50)]
    [(200, 1.0, 0.0)]
    """

    kind: ClassVar[str] = "bocpd"

    def __init__(self, hazard: float = 1 / 4000, categories: int = 2, max_runs: int = 1024) -> None:
        if not 0.0 < hazard < 0.5:
            raise ValueError(f"hazard must lie between 0 and 1/2, got {hazard}")
        if categories < 2:
            raise ValueError(f"categories must be at least 2, got {categories}")
        if max_runs < 8:
            raise ValueError(f"max_runs must be at least 8, got {max_runs}")
        self._hazard, self._categories, self._most = hazard, categories, max_runs
        self._head = np.array([0, 0, 1], np.int64)  # seen, declared start, runs held
        self._begin = np.zeros(max_runs + 1, np.int64)
        self._counts = np.zeros((max_runs + 1, categories), np.int64)
        self._chance = np.zeros(max_runs + 1)
        self._chance[0] = 1.0

    @property
    def categories(self) -> int:
        """How many values an observation can have (K)."""
        return self._categories

    @property
    def seen(self) -> int:
        """Observations so far."""
        return int(self._head[0])

    @property
    def run_start(self) -> int:
        """The start that was declared last."""
        return int(self._head[1])

    @property
    def run_length(self) -> int:
        """Observations since then."""
        return self.seen - self.run_start

    @property
    def forecasters(self) -> int:
        """Starts held."""
        return int(self._head[2])

    @property
    def most_forecasters(self) -> int:
        """How many are held at most."""
        return self._most

    @property
    def starts(self) -> IntArray:
        """Starts held in ascending order, the declared one first."""
        return self._begin[: self._head[2]].copy()

    @property
    def posterior(self) -> FloatArray:
        """Chances of ``starts``."""
        return self._chance[: self._head[2]].copy()

    def update(self, x: float) -> Change | None:
        """Take the next observation; return the change that it reveals, if any."""
        found = self._run(categories_of(x, self._categories).reshape(1))
        return found[0] if found else None

    def update_many(self, xs: ArrayLike) -> list[Change]:
        """Take observations in a row; return the changes that they reveal."""
        return self._run(categories_of(xs, self._categories))

    def _run(self, xs: IntArray) -> list[Change]:
        k, found, begin = self._categories, [], 0
        events, evidences = np.empty((_EVENTS, 3 + 2 * k), np.int64), np.empty(_EVENTS)
        while begin < len(xs):
            begin, count = _advance(
                *(self._head, self._begin, self._counts, self._chance, xs, begin, self._hazard, self._most),
                *(events, evidences),
            )
            found += [_change(*row) for row in zip(events[:count], evidences[:count].tolist(), strict=True)]
        return found

    def save(self) -> bytes:
        """Return the whole state, the configuration included."""
        runs = self.forecasters
        fields = {"hazard": self._hazard, "categories": self._categories, "max_runs": self._most}
        columns = {f"counts_{o}": np.ascontiguousarray(self._counts[:runs, o]) for o in range(self._categories)}
        columns |= {"head": self._head, "begin": self._begin[:runs]}
        return encode(_KIND, fields, {**columns, "chance": self._chance[:runs]})

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Return the detector that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged."""
        fields, arrays = decode(_KIND, data)
        try:
            detector = cls(fields["hazard"], fields["categories"], fields["max_runs"])
            detector._head = arrays["head"]
            runs = detector.forecasters
            detector._begin[:runs], detector._chance[:runs] = arrays["begin"], arrays["chance"]
            for o in range(detector._categories):
                detector._counts[:runs, o] = arrays[f"counts_{o}"]
        except (KeyError, ValueError) as error:
            raise SnapshotError(f"the saved {_KIND} is incomplete ({error}); discard it and start anew") from error
        return detector


@compiled
def _advance(
    head: IntArray,
    begin: IntArray,
    counts: IntArray,
    chance: FloatArray,
    xs: IntArray,
    first: int,
    hazard: float,
    most: int,
    events: IntArray,
    evidences: FloatArray,
) -> tuple[int, int]:
    """Take observations from ``first`` on until all are taken or ``events`` is full; return where, and the events."""
    k = counts.shape[1]
    found = 0
    for i in range(first, len(xs)):
        if found == len(events):
            return i, found
        x, runs = xs[i], head[2]
        total = 0.0
        for run in range(runs):
            n = head[0] - begin[run]
            chance[run] *= (counts[run, x] + 1.0) / (n + k)
            total += chance[run]
            counts[run, x] += 1
        best = 0
        for run in range(runs):
            chance[run] *= (1.0 - hazard) / total
            if chance[run] > chance[best]:
                best = run
        head[0] += 1
        if best and math.log(chance[best]) - math.log(max(chance[0], 1e-300)) > _TIE:
            events[found, 0], events[found, 1], events[found, 2] = i, begin[best], head[0] - 1
            for o in range(k):
                events[found, 3 + o] = counts[0, o] - counts[best, o]
                events[found, 3 + k + o] = counts[best, o]
            evidences[found] = math.log(chance[best]) - math.log(max(chance[0], 1e-300))
            found += 1
            head[1] = begin[best]
            runs -= best
            left = 0.0
            for run in range(runs):
                begin[run], chance[run] = begin[run + best], chance[run + best]
                counts[run] = counts[run + best]
                left += chance[run]
            for run in range(runs):
                chance[run] *= (1.0 - hazard) / left
        if runs == most:
            least = 1
            for run in range(2, runs):
                if chance[run] < chance[least]:
                    least = run
            runs -= 1
            for run in range(least, runs):
                begin[run], chance[run] = begin[run + 1], chance[run + 1]
                counts[run] = counts[run + 1]
        begin[runs], chance[runs] = head[0], hazard
        counts[runs] = 0
        head[2] = runs + 1
    return len(xs), found


def _change(event: IntArray, evidence: float) -> Change:
    k = (len(event) - 3) // 2
    before, after = event[3 : 3 + k].tolist(), event[3 + k :].tolist()
    return Change(
        index=int(event[1]),
        detected=int(event[2]),
        count_before=sum(before),
        count_after=sum(after),
        mean_before=sum(o * count for o, count in enumerate(before)) / sum(before),
        mean_after=sum(o * count for o, count in enumerate(after)) / sum(after),
        evidence=evidence,
        counts_before=tuple(before),
        counts_after=tuple(after),
    )
