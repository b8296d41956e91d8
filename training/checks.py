"""What feedback must be like before anything is fitted on it."""

from __future__ import annotations

import numpy as np

from engine.config import DecisionPoint
from training.dataset import Dataset

#: A logged vector may miss the sum of 1 by this: other systems round.
_SUM = 1e-3


def faults(rows: Dataset, point: DecisionPoint) -> list[str]:
    """Return what makes feedback unfit to train on, in words; empty where nothing does.

    A fault of the log must not become a policy: a reward out of range, a vector that is none, a decision twice.
    """
    found = []
    low, high = point.reward.range
    if not np.isfinite(rows.reward).all():
        found.append(f"{int((~np.isfinite(rows.reward)).sum())} rewards are not finite")
    elif point.reward.aggregation != "sum":
        outside = (rows.reward < low) | (rows.reward > high)
        if outside.any():
            found.append(f"{int(outside.sum())} rewards lie outside reward.range {[low, high]}")
    if len(rows):
        sums = np.add.reduceat(rows.probabilities, rows.starts[:-1])
        wrong = ~(np.abs(sums - 1.0) <= _SUM)
        if wrong.any():
            found.append(f"{int(wrong.sum())} logged vectors do not sum to 1")
        impossible = ~(rows.propensity > 0.0)
        if impossible.any():
            found.append(f"{int(impossible.sum())} chosen actions had no probability")
    twice = len(rows) - len(set(rows.decision_id))
    if twice:
        found.append(f"{twice} decisions are there twice")
    return found
