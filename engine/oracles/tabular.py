"""Tabular oracle: a value for each pair of a declared state and an action, such as a plan of UCRL2."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.oracles.base import Arrays

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class TabularOracle:
    """Score of an action in the state that one text feature of the context names.

    Parameters
    ----------
    q : ndarray of float64, shape (1 + n_states, 1 + n_actions)
        Scores. Row 0 belongs to states that are not known, column 0 to actions without a code.
    states : ndarray of int64, shape (n_buckets,)
        Row of q for each bucket of the feature; 0 where no known state falls into it.
    start
        Column of X at which the buckets begin.

    Examples
    --------
    >>> import numpy as np
    >>> oracle = TabularOracle(np.array([[0.0, 0.1], [0.0, 0.7]]), states=np.array([0, 1]), start=0)
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)  # the known state, and another
    >>> oracle.predict(X, np.array([1, 1])).tolist()
    [0.7, 0.1]
    """

    kind: ClassVar[str] = "tabular"

    def __init__(self, q: Float64, states: Int64, start: int) -> None:
        self.q = q
        self.states = states
        self.start = start
        self.q.flags.writeable = False
        self.states.flags.writeable = False

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the score of each row; see ``Oracle.predict``."""
        named = X[:, self.start : self.start + len(self.states)] == 1.0
        rows = np.where(named.any(axis=1), self.states[named.argmax(axis=1)], 0)
        scores: Float64 = self.q[rows, codes]
        return scores

    def arrays(self) -> Arrays:
        """Return the table, and where the state is found."""
        return {"q": self.q, "states": self.states, "columns": np.array([self.start, self.start + len(self.states)])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> TabularOracle:
        """Build it again; raises ``ValueError`` where it is damaged."""
        q = np.array(arrays["q"], dtype=np.float64)
        states, columns = (np.array(arrays[key]).astype(np.int64, casting="safe") for key in ("states", "columns"))
        if q.ndim != 2 or not np.isfinite(q).all():
            raise ValueError("q must be a matrix of finite numbers")
        if columns.shape != (2,) or states.shape != (columns[1] - columns[0],) or not len(states) or columns[0] < 0:
            raise ValueError(f"columns {columns.tolist()} do not fit {states.size} buckets")
        if states.min() < 0 or states.max() >= len(q):
            raise ValueError(f"states {states.min()} to {states.max()} do not fit {len(q)} rows")
        return cls(q, states, int(columns[0]))
