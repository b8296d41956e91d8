"""R-BOCPD on many streams at once."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from monitoring.budget import Budget
from monitoring.detector import Change, IntArray
from monitoring.observations import categories_of
from monitoring.rbocpd import layout
from monitoring.rbocpd.scan import Candidates, Predictor, Scan, Streams
from monitoring.rbocpd.streams import load_streams, save_streams
from monitoring.weights import AnyWeight

_KIND = "rbocpd-bank/2"


class BankChange(NamedTuple):
    """A change in one of the streams of a bank."""

    #: Position in the batch of the observation that revealed it.
    position: int
    stream: int
    change: Change


class RBOCPDBank:
    """S streams with the same configuration, in arrays that one compiled call updates.

    Each stream is what an ``RBOCPD`` of its own would be, bit for bit.

    Parameters
    ----------
    streams
        How many there are at first.
    weight, categories, predictor, candidates, max_candidates, per_octave, reseed
        As of ``RBOCPD``. The level is that of each stream: for one over all, divide the rate by S.
    stride
        A change is looked for at every ``stride``-th observation alone, not with "hull"; so it is found later by less.

    Examples
    --------
    >>> bank = RBOCPDBank(2)
    >>> stream = [0] * 300 + [1] * 60
    >>> changes = bank.update_many([0, 1] * 180, stream)  # both get 150 zeros and then ones
    >>> [(found.stream, found.change.index) for found in changes]
    [(0, 150), (1, 150)]
    """

    def __init__(
        self,
        streams: int,
        weight: AnyWeight | Budget | None = None,
        categories: int = 2,
        predictor: Predictor | None = None,
        candidates: Candidates | None = None,
        max_candidates: int = 128,
        per_octave: int = 16,
        reseed: bool = True,
        stride: int = 1,
    ) -> None:
        if streams < 0:
            raise ValueError(f"streams must be at least 0, got {streams}")
        self._scan = Scan.of(weight, categories, predictor, candidates, max_candidates, per_octave, reseed, stride)
        self._state = self._scan.empty(streams)

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self._state.head)

    @property
    def scan(self) -> Scan:
        """The configuration, with what was left open filled in."""
        return self._scan

    @property
    def seen(self) -> IntArray:
        """Observations of each stream so far."""
        return self._state.head[:, layout.SEEN].copy()

    @property
    def run_starts(self) -> IntArray:
        """Position in each stream at which its segment begins."""
        return self._state.head[:, layout.START].copy()

    @property
    def counts(self) -> IntArray:
        """How often each category occurred in the current segment, shape (S, K)."""
        return self._state.head[:, layout.COUNTS :].copy()

    @property
    def nbytes(self) -> int:
        """Bytes of the state's arrays."""
        return self._state.nbytes

    def add(self, streams: int = 1) -> int:
        """Add streams that have not begun; return the number of the first."""
        first, more = len(self), self._scan.empty(streams)
        state = self._state
        spare = state.rows.shape[1] - more.rows.shape[1]
        rows = np.pad(more.rows, ((0, 0), (0, spare), (0, 0)))
        before = np.pad(more.before, ((0, 0), (0, spare)), constant_values=np.nan)
        self._state = Streams(
            np.concatenate([state.head, more.head]),
            np.concatenate([state.slack, more.slack]),
            np.concatenate([state.rows, rows]),
            np.concatenate([state.lengths, np.pad(more.lengths, ((0, 0), (0, spare)))]),
            np.concatenate([state.before, before]),
            np.concatenate([state.due, np.pad(more.due, ((0, 0), (0, spare)))]),
        )
        return first

    def reset(self, stream: int) -> None:
        """Let one stream begin anew, as if it had not been seen."""
        self._state.head[stream] = 0

    def update_many(self, streams: ArrayLike, xs: ArrayLike) -> list[BankChange]:
        """Give observation ``xs[i]`` to stream ``streams[i]``, in order; return the changes in that order.

        Raises ``ValueError`` where one of them is impossible; then none was taken.
        """
        symbols = categories_of(xs, self._scan.categories)
        numbers = np.ascontiguousarray(streams, np.int64)
        if numbers.shape != symbols.shape:
            raise ValueError(f"streams and xs must be equally long, got {numbers.shape} and {symbols.shape}")
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise ValueError(f"streams must lie in 0..{len(self) - 1}, got {numbers.min()}..{numbers.max()}")
        return [BankChange(*found) for found in self._scan.run(self._state, numbers, symbols)]

    def statistic(self, stream: int) -> float:
        """Return the greatest weighted log Bayes factor of a change in one stream now, in nats."""
        return self._scan.statistic(self._state, stream)

    def starts(self, stream: int) -> IntArray:
        """Return the starts of the forecasters of one stream in ascending order, the anchor first."""
        return self._scan.starts(self._state, stream)

    def save(self) -> bytes:
        """Return the whole state, the configuration included."""
        return save_streams(_KIND, self._scan, self._state)

    @classmethod
    def load(cls, data: bytes, weight: AnyWeight | Budget | None = None) -> Self:
        """Return the bank that ``save`` wrote; raises ``SnapshotError`` where the bytes are damaged."""
        bank = cls.__new__(cls)
        bank._scan, bank._state = load_streams(_KIND, data, weight)
        return bank
