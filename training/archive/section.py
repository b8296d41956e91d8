"""A stretch of a column on disk, whose rows come in any order."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.dataset import Int64
from training.stored import Column


class Section:
    """Some rows of a column, while they are put in their places; several threads may put different rows.

    Parameters
    ----------
    column
        Of which they are.
    first, count
        Its first row, and how many there are.
    hold
        Whether they are held in memory until all are there; otherwise the file is mapped.
    """

    def __init__(self, column: Column, first: int, count: int, *, hold: bool) -> None:
        self._path = column.path
        self._begin = first * column.size
        shape = (count,) if column.width is None else (count, column.width)
        self._map: Any = None
        self._rows: NDArray[Any]
        if hold or count * column.size == 0:
            self._rows = np.empty(shape, column.dtype)
        else:
            with column.path.open("r+b") as file:  # raises where the disk is full; a page without room ends the process
                os.posix_fallocate(file.fileno(), self._begin, count * column.size)
            self._rows = np.memmap(column.path, column.dtype, "r+", self._begin, shape)
            self._map = self._rows.base

    def put(self, places: Int64, values: NDArray[Any], together: int = 1) -> None:
        """Write values to their places; ``together``: so many rows lie next to each other and have one place."""
        if values.size:
            _in_one(self._rows, together)[places] = _in_one(values, together)
            if self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)  # of a shared file: no byte is lost, the pages are the system's

    def write(self) -> None:
        """Write what was held, and let go of it; what is mapped is written."""
        data = self._rows.reshape(-1).view(np.uint8).data
        if self._map is None and len(data):
            with self._path.open("r+b", buffering=0) as file:
                file.seek(self._begin)
                done = 0
                while done < len(data):  # one call writes two gibibytes at most
                    done += file.write(data[done:])
        self._rows, self._map = np.empty(0, self._rows.dtype), None  # no view, which would hold it


def _in_one(rows: NDArray[Any], together: int) -> NDArray[Any]:
    """Return rows as one value each, which NumPy moves at once rather than number by number."""
    size = rows.itemsize * (rows.shape[1] if rows.ndim == 2 else 1) * together
    if size == rows.itemsize:
        return rows
    return np.ascontiguousarray(rows).reshape(-1).view(np.dtype((np.void, size)))
