"""Where the time of a decision goes: a histogram for each of its stages, for a hundredth of its cost."""

from __future__ import annotations

import threading
from collections.abc import Sequence

#: In their order. ``wait``: until the decision is as safe as the configuration asks.
STAGES = ("encode", "score", "explore", "draw", "record", "wait")
RECORD = STAGES.index("record")
_BITS = 64
#: Bounds that are shown, in powers of two of a nanosecond: 1 microsecond to 0.27 s.
_SHOWN = range(10, 29)
#: The same in seconds.
BOUNDS = tuple(2**bits / 1e9 for bits in _SHOWN)


class _Tally(threading.local):
    """Of one thread, so that no decision waits for another one to count: [stage, bits] counts, and sums in ns."""

    def __init__(self, every: list[tuple[list[int], list[int]]], lock: threading.Lock) -> None:
        self.counts = [0] * (len(STAGES) * _BITS)
        self.sums = [0] * len(STAGES)
        with lock:
            every.append((self.counts, self.sums))


class StageTimes:
    """Counts how long each stage took, by the number of bits of its nanoseconds.

    Threads that decide live as long as the process does, and so do their tallies.

    Examples
    --------
    >>> times = StageTimes()
    >>> times.add(0, [0, 1_500, 5_500])
    >>> times.count("score"), round(times.seconds("score") * 1e6, 1)
    (1, 4.0)
    """

    def __init__(self) -> None:
        self._every: list[tuple[list[int], list[int]]] = []
        self._mine = _Tally(self._every, threading.Lock())

    def add(self, first: int, at_ns: Sequence[int], decisions: int = 1) -> None:
        """Count stages that followed each other.

        Parameters
        ----------
        first
            Index of the first one in ``STAGES``.
        at_ns
            When each began, and when the last one ended, in nanoseconds of ``time.perf_counter_ns``.
        decisions
            How many were made together: each counts with its share of the time.
        """
        mine = self._mine
        counts, sums = mine.counts, mine.sums
        before = at_ns[0]
        for stage, now in enumerate(at_ns[1:], start=first):
            took = now - before
            before = now
            sums[stage] += took
            counts[stage * _BITS + (took // decisions).bit_length()] += decisions

    def count(self, stage: str) -> int:
        """Return how many decisions were counted."""
        begin = STAGES.index(stage) * _BITS
        return sum(sum(counts[begin : begin + _BITS]) for counts, _ in tuple(self._every))

    def seconds(self, stage: str) -> float:
        """Return the time that a stage took in all."""
        index = STAGES.index(stage)
        return sum(sums[index] for _, sums in tuple(self._every)) / 1e9

    def cumulative(self, stage: str) -> list[int]:
        """Return how many decisions took less than each of ``BOUNDS``, and at last how many there were."""
        begin = STAGES.index(stage) * _BITS
        by_bits = [0] * _BITS
        for counts, _ in tuple(self._every):
            for bits in range(_BITS):
                by_bits[bits] += counts[begin + bits]
        return [*(sum(by_bits[: bits + 1]) for bits in _SHOWN), sum(by_bits)]
