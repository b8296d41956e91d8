"""What memory a process has, and how it grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

Array = np.ndarray
_HOUR_S = 3_600.0


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB; NaN where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return math.nan
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return round(kib[0] / 1_024.0, 2) if kib else math.nan


@dataclass(frozen=True)
class Slope:
    """Growth in MiB an hour, with the ends of its interval of 95 %."""

    mib_per_hour: float
    low: float
    high: float
    blocks: int


def slope(runs: Sequence[tuple[Sequence[float], Sequence[float]]], block_s: float) -> Slope | None:
    """Return how memory grew, over the lives of a process that was started again; ``None``: they were too short.

    Each life has a level of its own and all have one slope: least squares on the least of each block. What a process
    takes for a moment, and gives back, is in the way; what it keeps raises the least that it has.

    Parameters
    ----------
    runs
        Seconds and MiB of each life, its warm-up left out.
    block_s
        Seconds of a block.
    """
    times: list[Array] = []
    sizes: list[Array] = []
    for seconds, mib in runs:
        at, size = np.asarray(seconds, dtype=float), np.asarray(mib, dtype=float)
        if len(at) == 0:
            continue
        block = ((at - at[0]) // block_s).astype(int)
        least = [(at[block == b].mean(), size[block == b].min()) for b in np.unique(block)]
        if len(least) > 1:
            pairs = np.array(least)
            times.append(pairs[:, 0] - pairs[:, 0].mean())
            sizes.append(pairs[:, 1] - pairs[:, 1].mean())
    if not times:
        return None
    x, y = np.concatenate(times), np.concatenate(sizes)
    freedom = len(x) - len(times) - 1
    if freedom < 1:
        return None
    rate = float(x @ y / (x @ x))
    error = math.sqrt(float(((y - rate * x) ** 2).sum()) / freedom / float(x @ x))
    half = float(student.ppf(0.975, freedom)) * error
    per_hour, off = _HOUR_S * rate, _HOUR_S * half
    return Slope(round(per_hour, 2), round(per_hour - off, 2), round(per_hour + off, 2), blocks=len(x))
