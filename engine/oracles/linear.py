"""Linear oracle: one ridge regression for each action, drawn towards one that all actions share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled, read
from engine.config.oracle import LinearOracleConfig
from engine.features import Float32
from engine.oracles.base import Arrays, batch
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.ridge_solve import penalties, solve

Float64 = NDArray[np.float64]


@compiled(
    numba.int64(read(numba.float32, 2), read(numba.int64, 1), read(numba.float64, 2), numba.types.float64[::1]),
)
def _expect(X: Float32, codes: NDArray[np.int64], theta: Float64, expected: Float64) -> int:
    """Write the expected reward of each row; return the place of the first code that ``theta`` has not, or -1.

    Each row is summed in one order, four sums side by side, whichever rows stand beside it: replay is exact.
    """
    width = X.shape[1]
    whole = width - width % 4
    for row in range(len(X)):
        code = codes[row]
        if not 0 <= code < len(theta):
            return row
        a = b = c = d = 0.0
        for column in range(0, whole, 4):
            a += theta[code, 1 + column] * X[row, column]
            b += theta[code, 2 + column] * X[row, 1 + column]
            c += theta[code, 3 + column] * X[row, 2 + column]
            d += theta[code, 4 + column] * X[row, 3 + column]
        for column in range(whole, width):
            a += theta[code, 1 + column] * X[row, column]
        expected[row] = theta[code, 0] + ((a + b) + (c + d))
    return -1


class LinearOracle:
    """Expected reward is linear in the row, with coefficients by action.

    Parameters
    ----------
    theta : ndarray of float64, shape (1 + n_actions, 1 + width)
        Row 0 belongs to actions without a code of their own; column 0 is the intercept.

    Examples
    --------
    >>> import numpy as np
    >>> oracle = LinearOracle(np.array([[0.5, 0.0], [0.1, 0.3]]))
    >>> oracle.predict(np.array([[1.0], [1.0]], dtype=np.float32), np.array([0, 1])).tolist()
    [0.5, 0.4]
    """

    kind: ClassVar[str] = "linear"

    def __init__(self, theta: Float64) -> None:
        self.theta = np.ascontiguousarray(theta)
        self.theta.flags.writeable = False

    @classmethod
    def constant(cls, reward: float, width: int) -> LinearOracle:
        """Return the oracle that expects the same of every row: before anything was learned."""
        theta = np.zeros((1, 1 + width))
        theta[0, 0] = reward
        return cls(theta)

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        theta = self.theta
        if X.shape[1] != theta.shape[1] - 1 or len(codes) != len(X):
            raise ValueError(f"rows {X.shape} and {len(codes)} codes do not fit theta {theta.shape}")
        expected = np.empty(len(X))
        unknown = _expect(np.ascontiguousarray(X), np.ascontiguousarray(codes), theta, expected)
        if unknown >= 0:
            raise IndexError(f"code {codes[unknown]} is none of the {len(theta)} that theta has")
        return expected

    def arrays(self) -> Arrays:
        """Return ``theta``."""
        return {"theta": self.theta}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> LinearOracle:
        """Build it from ``theta``; raises ``ValueError`` where it is damaged."""
        theta = np.array(arrays["theta"], dtype=np.float64)
        if theta.ndim != 2 or theta.size == 0 or not np.isfinite(theta).all():
            raise ValueError("theta must be a matrix of finite numbers")
        return cls(theta)


class LinearLearner:
    """Learns a ``LinearOracle`` from feedback, one batch after the other.

    It keeps the sufficient statistics of each action, ``A = sum w x x'`` and ``b = sum w r x``, and solves for the
    coefficients when asked: exact least squares, the same for any split into batches (without forgetting), and
    without the numerical decay of inverse updates. Two levels::

        theta_0 = (A_0 + ridge I)^-1 b_0                        all actions together
        theta_a = theta_0 + (A_a + ridge I)^-1 (b_a - A_a theta_0)

    so that an action seen never or rarely is scored as actions are in general, and one seen often by itself.

    Parameters
    ----------
    width : int
        Columns of X.
    ridge : float
        Strength of the pull towards zero (shared) and towards the shared coefficients (per action).
    forgetting : float
        Factor on what an action had learned at each new observation of it; 1 never forgets.
    max_actions : int
        How many actions get coefficients of their own.
    """

    kind: ClassVar[str] = "linear"

    def __init__(self, width: int, *, ridge: float = 1.0, forgetting: float = 1.0, max_actions: int = 256) -> None:
        self.ridge = ridge
        self.forgetting = forgetting
        self.max_actions = max_actions
        self.vocabulary: list[str] = []
        self.learned = 0
        self._codes: dict[str, int] = {}
        self._A = np.zeros((1, width + 1, width + 1))
        self._b = np.zeros((1, width + 1))

    @classmethod
    def from_config(cls, config: LinearOracleConfig, columns: Columns) -> LinearLearner:
        """Build it from ``policy.oracle``."""
        return cls(columns.width, ridge=config.ridge, forgetting=config.forgetting, max_actions=config.max_actions)

    @property
    def width(self) -> int:
        """Columns of X."""
        return int(self._b.shape[1]) - 1

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        X, rewards, w = batch(X, actions, rewards, weights, self.width)
        if len(actions) == 0:
            return
        rows = np.hstack([np.ones((len(actions), 1)), X.astype(np.float64)])
        codes = np.array([self._code(action) for action in actions])
        self._learn(0, rows, rewards, w)
        for code in np.unique(codes[codes > 0]):
            mine = codes == code
            self._learn(int(code), rows[mine], rewards[mine], w[mine])
        self.learned += len(actions)

    def _code(self, action: str) -> int:
        code = self._codes.get(action)
        if code is None:
            if len(self.vocabulary) >= self.max_actions:
                return 0
            self.vocabulary.append(action)
            code = self._codes[action] = len(self.vocabulary)
            self._A = np.concatenate([self._A, np.zeros((1, *self._A.shape[1:]))])
            self._b = np.concatenate([self._b, np.zeros((1, self._b.shape[1]))])
        return code

    def _learn(self, code: int, rows: Float64, rewards: Float64, weights: Float64) -> None:
        n = len(rows)
        if self.forgetting < 1.0:
            weights = weights * self.forgetting ** np.arange(n - 1, -1, -1.0)
            self._A[code] *= self.forgetting**n
            self._b[code] *= self.forgetting**n
        weighted = rows * weights[:, None]
        self._A[code] += rows.T @ weighted
        self._b[code] += rewards @ weighted

    def discount(self, weight: float) -> None:
        """Let all that was learned so far count for ``weight`` of what it did, in (0, 1]."""
        self._A *= weight
        self._b *= weight
        self.learned = round(self.learned * weight)

    def oracle(self) -> LinearOracle:
        """Return what has been learned, as an oracle that no longer changes."""
        shared = solve(self._A[0], self._b[0], penalties(self._A[0], self.ridge))
        theta = np.tile(shared, (len(self._b), 1))
        if len(theta) > 1:
            A, b = self._A[1:], self._b[1:]
            theta[1:] += solve(A, b - A @ shared, penalties(A, self.ridge))
        return LinearOracle(theta)

    def live(self) -> Following:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return Following(self)

    def arrays(self) -> Arrays:
        """Return the statistics, from which ``from_arrays`` goes on as if nothing had happened."""
        return {
            "A": self._A,
            "b": self._b,
            "learned": np.array(self.learned),
            # An array of texts would pad each to the longest and lose zero bytes at the end.
            "vocabulary": np.frombuffer(json.dumps(self.vocabulary).encode(), dtype=np.uint8),
            "settings": np.array([self.ridge, self.forgetting, self.max_actions]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> LinearLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        ridge, forgetting, max_actions = (float(v) for v in np.asarray(arrays["settings"], dtype=np.float64))
        A, b = (np.array(arrays[key], dtype=np.float64) for key in ("A", "b"))
        vocabulary = json.loads(np.asarray(arrays["vocabulary"], dtype=np.uint8).tobytes())
        if b.ndim != 2 or len(b) != 1 + len(vocabulary) or A.shape != (*b.shape, b.shape[1]):
            raise ValueError(f"statistics A {A.shape}, b {b.shape} do not fit {len(vocabulary)} actions")
        learner = cls(b.shape[1] - 1, ridge=ridge, forgetting=forgetting, max_actions=int(max_actions))
        learner._A, learner._b = A, b
        learner.vocabulary = vocabulary
        learner._codes = {action: code for code, action in enumerate(learner.vocabulary, start=1)}
        learner.learned = int(arrays["learned"])
        return learner
