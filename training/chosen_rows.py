"""What was done in each decision of a window on disk, as LightGBM reads it: a block of rows at a time."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.stored import BLOCK, StoredDataset


class ChosenRows(lightgbm.Sequence):  # type: ignore[misc]  # LightGBM publishes no types
    """Context, chosen action and its code, of each row; LightGBM samples rows for its bins, and bins all in blocks.

    Up to 200,000 rows all of them make the bins, and the trees are those of the same matrix in memory. Of more LightGBM
    samples 200,000, and of a sequence others than of a matrix: the same ones each time, but not the same bits.

    Parameters
    ----------
    rows
        The feedback.
    codes : ndarray of float32, shape (n,)
        Of the chosen actions: the last column.
    """

    batch_size = BLOCK

    def __init__(self, rows: StoredDataset, codes: NDArray[np.float32]) -> None:
        self._rows = rows
        self._codes = codes
        self._begin = 0
        self._block: NDArray[np.float64] = np.empty((0, rows.width + 1))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._codes)

    def __getitem__(self, index: Any) -> NDArray[np.floating]:
        """Return the rows of a slice, or one row, in float64 as LightGBM's sample must be.

        A sample is taken in the order of the rows, so the block around the last one that was asked for is kept.
        """
        if isinstance(index, slice):
            # All have been sampled by then: the memory is needed no more.
            self._begin, self._block = 0, self._block[:0].copy()
            return self._matrix(index.start, index.stop)
        place = int(index) - self._begin
        if not 0 <= place < len(self._block):
            self._begin = int(index) // BLOCK * BLOCK
            self._block = self._matrix(self._begin, min(self._begin + BLOCK, len(self))).astype(np.float64)
            place = int(index) - self._begin
        row: NDArray[np.float64] = self._block[place]
        return row

    def _matrix(self, begin: int, end: int) -> NDArray[np.float32]:
        found = np.empty((end - begin, self._rows.width + 1), np.float32)
        self._rows.part(begin, end).chosen_matrix(found[:, :-1])
        found[:, -1] = self._codes[begin:end]
        return found
