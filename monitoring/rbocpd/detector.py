"""R-BOCPD: restarted Bayesian online change-point detection, for zeros and ones or K categories.

Alami, Maillard, Feraud (ICML 2020), "Restarted Bayesian Online Change-point Detector achieves Optimal Detection
Delay", in the form of Alami (PMLR 232, 2023), eqs. (11) and (22). A *forecaster* s predicts from the observations
since s, by Laplace's rule, (count + 1) / (n + K), or that of Krichevsky and Trofimov, (count + 1/2) / (n + K/2). Its
loss over x_s..x_t with counts N_o among n observations is, in closed form, with a = 1 or 1/2,

    L(s:t) = -log( Gamma(K a) / Gamma(n + K a) * prod_o Gamma(N_o + a) / Gamma(a) ).

With the *anchor* r, the start of the segment, there is a change at t iff for some s in (r, t]

    log eta(r,s,t) - L(r:s-1) - L(s:t) + L(r:t) > 0,

the log Bayes factor of "two segments, split at s" against "one", plus the log weight of ``monitoring.weights``.

Where the text and this file differ, and why:

- Evaluated in closed form. The recursion as printed leaves out the first loss of a new forecaster, and then
  restarts every few observations.
- The change is reported at the s that maximises the statistic, not at the time of the alarm, and the new segment
  is *re-seeded*: it begins at that s and keeps the observations since. In the papers it begins empty after the
  alarm, which forgets exactly the observations that revealed the change; ``reseed=False`` does that.
- Two hypotheses can explain a short segment equally well; rounding must not decide, so "> 0" is "> 1e-9".
- Not all s are looked at. For K = 2 those on the convex hull of (observations, ones among them) contain the s of
  greatest likelihood (the candidates of Romano et al., JMLR 2023); for any K, ``per_octave`` for each octave of age. An
  alarm is a union over s, so looking at fewer can delay it and never add one.
- With a ``ShapedWeight`` the test is skipped while it cannot succeed: an observation adds at most the anchor's loss on
  it. That changes no alarm.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from monitoring.budget import Budget
from monitoring.detector import Change, IntArray
from monitoring.observations import categories_of
from monitoring.rbocpd import layout
from monitoring.rbocpd.scan import Candidates, Predictor, Scan
from monitoring.rbocpd.streams import load_streams, save_streams
from monitoring.weights import AnyWeight

_KIND = "rbocpd/3"
_FIRST_STREAM = np.zeros(1, np.int64)


class RBOCPD:
    """R-BOCPD on one stream.

    Parameters
    ----------
    weight
        What sets the false-alarm level: a ``Budget``, by default 1 % of stationary streams within 10 000 observations,
        or a weight.
    categories
        K >= 2; observations are 0..K-1.
    predictor
        "laplace" or "kt". By default Laplace's, as in the papers, and for a ``Budget`` the one it is calibrated for.
    candidates
        Which starts are looked at: "hull" (K = 2 only, the default there), "octaves" (the default for K > 2), or
        "all", the exact test, whose time and memory grow with the segment.
    max_candidates
        Most forecasters of "hull", at least 8. A random stream has about 4 log n vertices; where there are more, those
        closest to their neighbours are dropped.
    per_octave
        Forecasters for each octave of age of "octaves", at least 2.
    reseed
        Whether a new segment keeps the observations since the change.

    Examples
    --------
    >>> detector = RBOCPD()
    >>> [(c.index, c.count_before, c.mean_before, c.mean_after) for c in detector.update_many([1] * 200 + [0] * 50)]
    [(200, 200, 1.0, 0.0)]
    >>> detector.run_start  # the new segment begins at the change
    200
    """

    kind: ClassVar[str] = "rbocpd"

    def __init__(
        self,
        weight: AnyWeight | Budget | None = None,
        categories: int = 2,
        predictor: Predictor | None = None,
        candidates: Candidates | None = None,
        max_candidates: int = 128,
        per_octave: int = 16,
        reseed: bool = True,
    ) -> None:
        self._scan = Scan.of(weight, categories, predictor, candidates, max_candidates, per_octave, reseed)
        self._state = self._scan.empty(1)

    @property
    def scan(self) -> Scan:
        """The configuration, with what was left open filled in."""
        return self._scan

    @property
    def categories(self) -> int:
        """How many values an observation can have (K)."""
        return self._scan.categories

    @property
    def seen(self) -> int:
        """Observations so far."""
        return int(self._state.head[0, layout.SEEN])

    @property
    def run_start(self) -> int:
        """Position at which the current segment begins (the anchor r)."""
        return int(self._state.head[0, layout.START])

    @property
    def run_length(self) -> int:
        """Observations of the current segment."""
        return self.seen - self.run_start

    @property
    def forecasters(self) -> int:
        """Starts held: the anchor and its candidates."""
        return len(self.starts)

    @property
    def most_forecasters(self) -> int | None:
        """How many can be held at this length of the stream; None if there is no bound."""
        return self._scan.most_forecasters(self.seen)

    @property
    def starts(self) -> IntArray:
        """Starts of the forecasters in ascending order, the anchor first."""
        return self._scan.starts(self._state, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the state's arrays."""
        return self._state.nbytes

    def update(self, x: float) -> Change | None:
        """Take the next observation; return the change that it reveals, if any."""
        found = self._scan.run(self._state, _FIRST_STREAM, categories_of(x, self.categories).reshape(1))
        return found[0][2] if found else None

    def update_many(self, xs: ArrayLike) -> list[Change]:
        """Take observations in a row; return the changes that they reveal."""
        symbols = categories_of(xs, self.categories)
        streams = np.zeros(len(symbols), np.int64)
        return [change for _, _, change in self._scan.run(self._state, streams, symbols)]

    def statistic(self) -> float:
        """Return the left side of the test now: the greatest weighted log Bayes factor of a change, in nats.

        Minus infinity before the second observation of a segment. Positive values are alarms.
        """
        return self._scan.statistic(self._state, 0)

    def save(self) -> bytes:
        """Return the whole state, the configuration included."""
        return save_streams(_KIND, self._scan, self._state)

    @classmethod
    def load(cls, data: bytes, weight: AnyWeight | Budget | None = None, max_candidates: int | None = None) -> Self:
        """Return the detector that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged.

        ``weight`` and ``max_candidates`` replace what was saved: the configuration may have changed since.
        """
        detector = cls.__new__(cls)
        detector._scan, detector._state = load_streams(_KIND, data, weight, max_candidates)
        return detector
