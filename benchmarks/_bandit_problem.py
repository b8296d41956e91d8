"""Supervised data as a bandit: one class owns the labels, and tells of each row the reward of one action alone.

Runs in the environments of the peers too, so that it needs NumPy and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class Bandit:
    """One pass over a data set in the order of a seed.

    Parameters
    ----------
    path
        Archive with X (n, d) float32 and Y (n, K), 1 where the action is right.
    seed
        Of the order of the rows.
    rows
        No more than so many of them.

    Attributes
    ----------
    contexts : ndarray of float32, shape (n, d)
        What is known before an action is chosen. Labels are in no column of it.
    actions : int
        K.
    reward : float
        Sum of the rewards so far.
    """

    def __init__(self, path: Path, seed: int, rows: int | None = None) -> None:
        with np.load(path, allow_pickle=False) as data:
            order = np.random.RandomState(seed).permutation(len(data["X"]))[:rows]
            self.contexts: Float32 = np.ascontiguousarray(data["X"][order], dtype=np.float32)
            self.__right = data["Y"][order] == 1
        self.actions = int(self.__right.shape[1])
        self.reward = 0.0
        self._at = 0

    def __len__(self) -> int:
        return len(self.contexts)

    def act(self, action: int) -> float:
        """Choose an action for the next row; return its reward, and nothing of the others'.

        Each row is asked once, in its order: a second guess at the same row cannot be had.
        """
        if self._at >= len(self.contexts):
            raise IndexError(f"all {len(self.contexts)} rows have been acted on")
        if not 0 <= action < self.actions:
            raise ValueError(f"action {action} is not one of {self.actions}")
        reward = float(self.__right[self._at, action])
        self._at += 1
        self.reward += reward
        return reward

    def mean_reward(self) -> float:
        """Return the progressive mean reward; raises ``RuntimeError`` before the last row."""
        if self._at != len(self.contexts):
            raise RuntimeError(f"only {self._at} of {len(self.contexts)} rows have been acted on")
        return self.reward / self._at
