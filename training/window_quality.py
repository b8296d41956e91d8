"""What a window of feedback is worth to learn from: how much of what there was it tried, and how well it fared.

After Schweighofer, Dinu, Radler, Hofmarcher, Patil, Bitto-Nemling, Eghbal-zadeh and Hochreiter, *A Dataset Perspective
on Offline Reinforcement Learning*, CoLLAs 2022, in which a data set is placed by state-action coverage (SACo) and
trajectory quality (TQ). A decision is a trajectory of one step here, and both are defined for it below; the paper takes
its references from other data sets, which a decision point does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from training.dataset import Dataset, Float32
from training.evaluation.base import Float64, Int64
from training.stored import Feedbacks

#: Contexts are told apart by the sides of so many random planes on which they lie: 16 kinds.
PLANES = 4


@dataclass(frozen=True)
class WindowQuality:
    """The quality of a training window, all in [0, 1] but for the count.

    Attributes
    ----------
    coverage : float
        SACo, see ``coverage``.
    trajectory_quality : float
        TQ, see ``trajectory_quality``.
    positives : float
        Share of rewards above the middle of the reward's range. Near 0 or 1 there is little to tell actions apart by:
        a policy that has become good logs few failures, and the next one learns less from it.
    drifts : int
        Changes inside the window that nothing explains: the rows before and after are of two worlds.
    """

    coverage: float
    trajectory_quality: float
    positives: float
    drifts: int = 0


def window_quality(
    window: Feedbacks, held: Dataset, q_hat: Float64, reward_range: tuple[float, float], drifts: int = 0
) -> WindowQuality:
    """Return the quality of a window.

    Parameters
    ----------
    window
        All of it.
    held
        The part for which there is a reward model that has not seen it.
    q_hat : ndarray of float64
        Expected rewards of that part, for each offered action.
    reward_range
        Of the decision point.
    drifts
        Unexplained changes inside the window.
    """
    return WindowQuality(
        coverage(window),
        trajectory_quality(held, q_hat),
        float((window.reward > sum(reward_range) / 2).mean()),
        drifts,
    )


def coverage(rows: Feedbacks, planes: int = PLANES) -> float:
    """Return the share of the distinct (kind of context, action) pairs that were available which were also drawn.

    Kinds of contexts are cells: the sides of fixed random planes through the median (Charikar, *Similarity Estimation
    Techniques from Rounding Algorithms*, STOC 2002). 1: whatever was to be had in any kind of context was tried in it
    at least once. It says nothing of how often.
    """
    kinds = _Kinds.of(rows, planes)
    known: dict[str, int] = {}
    tried: set[int] = set()
    there: set[int] = set()
    for block in rows.blocks():
        encoded = pa.array(block.action_ids, pa.string()).dictionary_encode()
        codes = np.array([known.setdefault(action, len(known)) for action in encoded.dictionary.to_pylist()], np.int64)
        cell = np.repeat(kinds.cells(block.context), np.diff(block.starts))
        pair = (codes[encoded.indices.to_numpy()] << planes) + cell
        tried.update(np.unique(pair[block.chosen_flat]).tolist())
        there.update(np.unique(pair[block.available]).tolist())
    return len(tried) / len(there)


@dataclass(frozen=True)
class _Kinds:
    """Kinds of contexts: planes through the median, after each feature was brought to deviation 1."""

    median: Float64
    spread: Float64
    normals: Float64

    @classmethod
    def of(cls, rows: Feedbacks, planes: int) -> _Kinds:
        # A median needs its whole column: two of them at a time. What is left of four stays together, for NumPy sums a
        # column that stands alone in another order.
        found: list[tuple[Float64, Float64]] = []
        width = next(iter(rows.contexts())).shape[1] if len(rows) else 0
        rest = width - width % 4
        for first, end in pairwise([*range(0, rest, 2), *sorted({rest, width})]):
            some = np.concatenate([part[:, first:end] for part in rows.contexts()]).astype(np.float64)
            found.append((np.median(some, axis=0), some.std(axis=0)))
        median, spread = (np.concatenate([each[place] for each in found] or [np.empty(0)]) for place in (0, 1))
        normals = np.random.default_rng(0).normal(size=(width, planes))
        return cls(median, np.where(spread > 0.0, spread, 1.0), normals)

    def cells(self, context: Float32) -> Int64:
        """Return the kind of each context, shape (n,)."""
        values = (context.astype(np.float64) - self.median) / self.spread
        return np.asarray((values @ self.normals > 0.0) @ (1 << np.arange(self.normals.shape[1])), dtype=np.int64)


def trajectory_quality(rows: Dataset, q_hat: Float64) -> float:
    """Return where the mean reward lies between that of the worst policy (0) and the best one (1).

    Both are those that the reward model knows: always the least, always the greatest ``q_hat`` of the available
    actions. The model's noise widens the span, so that a perfect window stays somewhat below 1 where rows are few.
    1 where all actions are alike: there is nothing to do better.
    """
    worst = float(np.minimum.reduceat(np.where(rows.available, q_hat, np.inf), rows.starts[:-1]).mean())
    best = float(np.maximum.reduceat(np.where(rows.available, q_hat, -np.inf), rows.starts[:-1]).mean())
    if best <= worst:
        return 1.0
    return min(max((float(rows.reward.mean()) - worst) / (best - worst), 0.0), 1.0)
