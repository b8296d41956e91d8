"""The streams on which detectors are compared: drawn from a seed, so that two processes draw the same."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Observations before the change, of all rows.
CHANGE = 1_000
#: Streams on which the levels are measured and the thresholds tuned.
TUNING = 800
#: First seeds of the streams to tune on and to test on; the shape of the default weight was chosen on others.
TUNED_ON, TESTED_ON = 10**6, 3 * 10**6


@dataclass(frozen=True)
class Row:
    """One kind of change: chances of the categories before and after, and observations after."""

    name: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    length: int = 3_000
    #: Observations over which the chances move linearly; 1 is at once.
    ramp: int = 1

    def draw(self, seeds: int, first: int, length: int | None = None) -> NDArray[np.int64]:
        """Return streams as rows; ``first`` is the first seed."""
        total = CHANGE + self.length if length is None else length
        share = np.clip((np.arange(total) - CHANGE + 1) / self.ramp, 0.0, 1.0)[:, None]
        cuts = np.cumsum((1 - share) * np.array(self.before) + share * np.array(self.after), axis=1)[:, :-1]
        drawn = [np.random.default_rng([7, first + seed]).random(total) for seed in range(seeds)]
        return np.array([(u[:, None] >= cuts).sum(axis=1) for u in drawn], np.int64)


def binary(p: float, q: float, length: int = 3_000, ramp: int = 1) -> Row:
    name = f"{p:g} -> {q:g}" + (f" over {ramp}" if ramp > 1 else "")
    return Row(name, (1 - p, p), (1 - q, q), length, ramp)


def deciles(name: str, mean: float, scale: float) -> Row:
    """A normal variable in the deciles of its reference."""
    edges = [NormalDist().inv_cdf(i / 10) for i in range(1, 10)]
    cdf = [0.0, *(NormalDist(mean, scale).cdf(edge) for edge in edges), 1.0]
    return Row(f"K=10 {name}", (0.1,) * 10, tuple(np.diff(cdf).tolist()))


ABRUPT = [
    binary(0.5, 0.6),
    binary(0.5, 0.7),
    binary(0.5, 0.9, 1_000),
    binary(0.01, 0.02, 8_000),
    Row("K=4 uniform -> .4 .2 .2 .2", (0.25,) * 4, (0.4, 0.2, 0.2, 0.2)),
    deciles("mean +.25 sd", 0.25, 1.0),
    deciles("mean +.5 sd", 0.5, 1.0),
    deciles("sd x1.5", 0.0, 1.5),
]
GRADUAL = [binary(0.5, 0.7, ramp=1_000)]
ROWS = {row.name: row for row in [*ABRUPT, *GRADUAL]}
