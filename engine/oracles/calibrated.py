"""An oracle on another scale: what it expects, calibrated by a straight line.

Cox, *Two further applications of a model for binary regression*, Biometrika 45, 1958: intercept and slope of what came
on what was expected. The exploration turns gaps between scores into probabilities, so their scale matters.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Oracle
from engine.oracles.nested import flat, parts_of


class CalibratedOracle:
    """Expected reward is ``intercept + slope * score`` of another oracle.

    Parameters
    ----------
    base
        The other oracle.
    intercept, slope
        The line; the slope is not negative, so that the order of the actions stays.

    Examples
    --------
    >>> from engine.oracles.linear import LinearOracle
    >>> oracle = CalibratedOracle(LinearOracle(np.array([[0.0], [0.4]])), 0.1, 0.5)
    >>> oracle.predict(np.zeros((1, 0), np.float32), np.array([1])).round(6).tolist()
    [0.3]
    """

    kind: ClassVar[str] = "calibrated"

    def __init__(self, base: Oracle, intercept: float, slope: float) -> None:
        if not (np.isfinite(intercept) and 0.0 <= slope < np.inf):
            raise ValueError(f"intercept {intercept} and slope {slope} are of no calibration")
        self.base = base
        self.intercept = intercept
        self.slope = slope

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        return self.intercept + self.slope * self.base.predict(X, codes)

    def arrays(self) -> Arrays:
        """Return the other oracle's and the line."""
        return {**flat([self.base]), "line": np.array([self.intercept, self.slope])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CalibratedOracle:
        """Build it from its arrays; raises ``ValueError`` where they are damaged."""
        from engine.oracles import ORACLES

        line = np.asarray(arrays["line"], dtype=np.float64)
        [base] = parts_of(arrays, ORACLES)
        if line.shape != (2,):
            raise ValueError(f"line must be two numbers, not of shape {line.shape}")
        return cls(base, float(line[0]), float(line[1]))
