"""What feedback must be like before anything is fitted on it."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from engine.config import DecisionPoint
from training.stored import Feedbacks

#: A logged vector may miss the sum of 1 by this: other systems round.
_SUM = 1e-3


def faults(rows: Feedbacks, point: DecisionPoint) -> list[str]:
    """Return what makes feedback unfit to train on, in words; empty where nothing does.

    A fault of the log must not become a policy: a reward out of range, a vector that is none, a decision twice.
    """
    found = []
    low, high = point.reward.range
    reward = rows.reward
    if not np.isfinite(reward).all():
        found.append(f"{int((~np.isfinite(reward)).sum())} rewards are not finite")
    elif point.reward.aggregation != "sum":
        outside = (reward < low) | (reward > high)
        if outside.any():
            found.append(f"{int(outside.sum())} rewards lie outside reward.range {[low, high]}")
    wrong = impossible = 0
    for block in rows.blocks():
        sums = np.add.reduceat(block.probabilities, block.starts[:-1])
        wrong += int((~(np.abs(sums - 1.0) <= _SUM)).sum())
        impossible += int((~(block.propensity > 0.0)).sum())
    if wrong:
        found.append(f"{wrong} logged vectors do not sum to 1")
    if impossible:
        found.append(f"{impossible} chosen actions had no probability")
    twice = len(rows) - pc.count_distinct(rows.decision_ids()).as_py()
    if twice:
        found.append(f"{twice} decisions are there twice")
    return found
