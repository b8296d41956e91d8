"""Which actions may be the best one, given bounds on their value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.exploration.base import Float64


def plausible(mean: Float64, width: Float64 | float) -> NDArray[np.bool_]:
    """Say which actions have an upper bound, mean + width, that reaches the greatest lower one, mean - width.

    >>> import numpy as np
    >>> plausible(np.array([0.5, 0.4, 0.1]), np.array([0.1, 0.05, 0.1])).tolist()
    [True, True, False]
    """
    with np.errstate(over="ignore"):  # a bound beyond float64 is an infinite one
        return np.asarray(mean + width >= (mean - width).max())
