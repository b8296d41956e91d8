"""Solving ridge regressions so that no feature, however large, makes them singular."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Least ridge of a coordinate as a share of the squares that were summed in it. Less would be lost in rounding: two
#: features of 1e9 that move together would be singular beside a ridge of 1. Below 1e12 times the ridge it changes
#: nothing.
FLOOR = 1e-12


def penalties(A: Float64, ridge: float | Float64) -> Float64:
    """Return the ridge of each coordinate, shape (..., d), for statistics A of shape (..., d, d).

    >>> penalties(np.diag([4.0, 1e18]), 1.0).tolist()
    [1.0, 1000000.0]
    """
    return np.maximum(ridge, FLOOR * np.diagonal(A, axis1=-2, axis2=-1))


def solve(A: Float64, b: Float64, penalty: Float64) -> Float64:
    """Return (A + diag(penalty))^-1 b, for b of shape (..., d).

    Solved with every coordinate in units of its own size, so that the condition is that of the correlations.
    """
    unit = _units(A, penalty)
    return unit * np.linalg.solve(_scaled(A, penalty, unit), (unit * b)[..., None])[..., 0]


def inverse(A: Float64, penalty: Float64) -> Float64:
    """Return (A + diag(penalty))^-1, exactly symmetric."""
    unit = _units(A, penalty)
    P = np.linalg.inv(_scaled(A, penalty, unit)) * (unit[..., :, None] * unit[..., None, :])
    return 0.5 * (P + np.swapaxes(P, -1, -2))


def _units(A: Float64, penalty: Float64) -> Float64:
    return 1.0 / np.sqrt(np.diagonal(A, axis1=-2, axis2=-1) + penalty)


def _scaled(A: Float64, penalty: Float64, unit: Float64) -> Float64:
    scaled: Float64 = A * unit[..., :, None] * unit[..., None, :]
    d = A.shape[-1]
    scaled[..., np.arange(d), np.arange(d)] = 1.0
    return scaled
