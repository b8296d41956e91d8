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

_FLOAT32 = 0
_NORMAL = 0
_PARAMETERS = b"num_threads=1 predict_disable_shape_check=true"


class _Buffers(threading.local):
    """Of one thread: the matrix with the code as its last column, and the answers."""

    def __init__(self) -> None:
        self.rows: Float32 = np.empty((0, 0), np.float32)
        self.out: Float64 = np.empty(0)
        self.length = ctypes.c_int64()


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
            mine.rows = np.empty((max(count, 16), width + 1), np.float32)
            mine.out = np.empty(len(mine.rows))
        mine.rows[:count, :width] = X
        mine.rows[:count, width] = codes
        failed = self._call(
            self._handle,
            ctypes.c_void_p(mine.rows.ctypes.data),
            ctypes.c_int(_FLOAT32),
            ctypes.c_int32(count),
            ctypes.c_int32(width + 1),
            ctypes.c_int(1),  # row by row
            ctypes.c_int(_NORMAL),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_char_p(_PARAMETERS),
            ctypes.byref(mine.length),
            ctypes.c_void_p(mine.out.ctypes.data),
        )
        if failed or mine.length.value != count:
            raise RuntimeError(f"LightGBM could not predict {count} rows: {ctypes.string_at(self._error())!r}")
        return mine.out[:count].copy()
