"""Predictions by LightGBM's own C API: what its Python package does around it costs as much as the trees.

One matrix a request and one thread: ``LGBM_BoosterPredictForMat`` may be called by many threads at once on one
booster, each with buffers of its own (the single-row functions contend for a lock).
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

import numpy as np

from engine.features import Float32
from engine.oracles.base import Float64, Int64

if TYPE_CHECKING:
    import lightgbm

_FLOAT32, _ROW_BY_ROW, _NORMAL = ctypes.c_int(0), ctypes.c_int(1), ctypes.c_int(0)
_FROM_THE_FIRST, _TO_THE_LAST = ctypes.c_int(0), ctypes.c_int(-1)  # tree
_PARAMETERS = ctypes.c_char_p(b"num_threads=1 predict_disable_shape_check=true")


class _Buffers(threading.local):
    """Of one thread: the matrix with the code as its last column, and the answers."""

    def __init__(self) -> None:
        self.length = ctypes.c_int64()
        self.fit(0, 0)

    def fit(self, count: int, columns: int) -> None:
        """Make room for so many rows; where it lies is asked for once, since to ask takes microseconds."""
        self.rows: Float32 = np.empty((count, columns), np.float32)
        self.out: Float64 = np.empty(count)
        self.rows_at = ctypes.c_void_p(self.rows.ctypes.data)
        self.out_at = ctypes.c_void_p(self.out.ctypes.data)
        self.length_at = ctypes.byref(self.length)


class MatrixPredictor:
    """Predicts all rows of a request in one call.

    Parameters
    ----------
    booster
        Kept alive as long as this is; never changed.

    Raises
    ------
    AttributeError
        Where the installed LightGBM has no such function, or its package keeps the handle elsewhere.
    """

    def __init__(self, booster: lightgbm.Booster) -> None:
        from lightgbm import basic

        self._booster = booster
        self._handle = booster._handle
        self._call = basic._LIB.LGBM_BoosterPredictForMat
        self._error = basic._LIB.LGBM_GetLastError
        self._buffers = _Buffers()

    def __call__(self, X: Float32, codes: Int64) -> Float64:
        """Return the prediction of each row, with the code as its last feature."""
        count, width = X.shape
        mine = self._buffers
        if mine.rows.shape[1] != width + 1 or len(mine.rows) < count:
            mine.fit(max(count, 16), width + 1)
        mine.rows[:count, :width] = X
        mine.rows[:count, width] = codes
        failed = self._call(
            self._handle,
            mine.rows_at,
            _FLOAT32,
            ctypes.c_int32(count),
            ctypes.c_int32(width + 1),
            _ROW_BY_ROW,
            _NORMAL,
            _FROM_THE_FIRST,
            _TO_THE_LAST,
            _PARAMETERS,
            mine.length_at,
            mine.out_at,
        )
        if failed or mine.length.value != count:
            raise RuntimeError(f"LightGBM could not predict {count} rows: {ctypes.string_at(self._error())!r}")
        return mine.out[:count].copy()
