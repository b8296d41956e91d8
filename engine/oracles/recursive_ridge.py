"""Second-order oracle: ridge regression by rank-one updates of the inverse, with its exact uncertainty.

Sherman and Morrison, *Adjustment of an inverse matrix corresponding to a change in one element of a given matrix*,
Annals of Mathematical Statistics 1950; as an oracle of bandits: Li et al., *A contextual-bandit approach to
personalized news article recommendation*, WWW 2010 (the disjoint model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.config.oracle import FourierConfig, NeuralConfig, RawConfig, RecursiveRidgeConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, batch
from engine.oracles.by_code import ByCode
from engine.oracles.columns import Columns
from engine.oracles.feature_map import FeatureMap, Spread
from engine.oracles.ridge_solve import inverse, penalties
from engine.oracles.vocabulary import Vocabulary

STRUCTURES = ("shared", "per_action", "hierarchical")
_SHARED, _PER_ACTION, _HIERARCHICAL = range(3)
#: A row further out than so many (squared) standard deviations would cost the rank-one update half of its digits.
_FAR = 1e6
#: Rounding errors of so many rank-one updates stay below what the tests demand.
_INTERVAL = 4_096


class RecursiveRidgeOracle:
    """Expected reward is linear in the features of the row; its standard deviation is sqrt(z' A^-1 z) times the noise.

    Parameters
    ----------
    theta : ndarray of float64, shape (1 + n_actions, d)
        Row 0 belongs to actions without a code of their own.
    P : ndarray of float64, shape (1 + n_actions, d, d), or (0, d, d) where no uncertainty is carried
        (A + ridge I)^-1 of each.
    features
        From X to the d features.
    columns
        The form of the rows.
    noise : float
        Standard deviation of a reward around its expectation.
    shared : bool
        One regression for all actions: codes do not matter.
    """

    kind: ClassVar[str] = "recursive_ridge"

    def __init__(
        self, theta: Float64, P: Float64, features: FeatureMap, columns: Columns, noise: float, *, shared: bool
    ) -> None:
        from engine.oracles import ridge_kernels

        self._kernels = ridge_kernels
        self.theta = theta
        self.P = P
        for array in (theta, P):
            array.flags.writeable = False
        self.features = features
        self.columns = columns
        self.noise = noise
        self.shared = shared

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        return self._mean(self.features.transform(X), self._blocks(codes))

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and standard deviation of each row's expected reward; see ``UncertainOracle``."""
        if not len(self.P):
            raise TypeError("this oracle carries no uncertainty; set policy.oracle.uncertainty: true")
        Z, blocks = self.features.transform(X), self._blocks(codes)
        variance = np.empty(len(Z))
        # Mapped features depend on all columns: they are shared by rows that agree in all.
        prefix = Z.shape[1] if self.features.layers else 1 + self.columns.context
        self._kernels.quadratic(Z, blocks, prefix, self.P, variance)
        return self._mean(Z, blocks), self.noise * np.sqrt(variance)

    def _blocks(self, codes: Int64) -> Int64:
        return _checked(codes, len(self.theta) - 1, shared=self.shared)

    def _mean(self, Z: Float64, blocks: Int64) -> Float64:
        out = np.empty(len(Z))
        self._kernels.score(Z, blocks, self.theta, out)
        out += self.columns.low
        return out

    def arrays(self) -> Arrays:
        """Return coefficients, half of each symmetric matrix, the feature map and the settings."""
        d = self.theta.shape[1]
        c = self.columns
        return {
            "theta": self.theta,
            "P": self.P[:, *np.triu_indices(d)],
            **self.features.arrays(),
            "settings": np.array([c.context, c.action, c.low, c.high, self.noise, self.shared]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RecursiveRidgeOracle:
        """Build it from its arrays; raises ``ValueError`` where they are damaged."""
        features, columns, (noise, shared) = _form(arrays, 2)
        theta, half = (np.array(arrays[name], dtype=np.float64) for name in ("theta", "P"))
        d = features.size
        upper = np.triu_indices(d)
        if theta.ndim != 2 or theta.shape[1] != d or not len(theta) or not np.isfinite(theta).all():
            raise ValueError(f"theta {theta.shape} must be a matrix of finite numbers with {d} columns")
        if half.ndim != 2 or half.shape[1] != len(upper[0]) or len(half) not in (0, len(theta)):
            raise ValueError(f"P {half.shape} does not fit theta {theta.shape}")
        if not np.isfinite(half).all() or noise < 0.0:
            raise ValueError("P and noise must be finite, and noise not negative")
        P = np.empty((len(half), d, d))
        P[:, *upper] = half
        P[:, upper[1], upper[0]] = half
        return cls(theta, P, features, columns, noise, shared=bool(shared))


class RecursiveRidgeLearner(ByCode):
    """Learns a ``RecursiveRidgeOracle``, one row after the other, each in time of the square of the features.

    For each regression it keeps the statistics ``A = sum w z z'`` and ``b = sum w r z`` and the inverse
    ``P = (A + ridge I)^-1``, updated in rank one. Where that would lose digits (a row far out of all before, or many
    updates) P is solved for anew from A. In the hierarchical structure each action is drawn to the shared regression ::

        theta_a = P_a (b_a + ridge theta_0)

    as in ``engine.oracles.linear``. Rewards are learned from the low end of their range. With forgetting the ridge
    fades with the rows and is restored at each new solution, before it has fallen to a half. A weight of 3 is three
    times the row, but for the estimate of the noise; any split into batches gives the same bits.

    Rows of a new action are as uncertain as nothing learned makes them; those of an action for which there is no room
    (``max_actions``) are as uncertain as the shared regression.

    Parameters
    ----------
    columns
        The form of the rows.
    config
        ``policy.oracle``.
    """

    kind: ClassVar[str] = "recursive_ridge"

    def __init__(self, columns: Columns, config: RecursiveRidgeConfig | None = None) -> None:
        from engine.oracles import ridge_kernels

        self._kernels = ridge_kernels
        self.config = config or RecursiveRidgeConfig()
        self._structure = STRUCTURES.index(self.config.structure)
        super().__init__(columns, 0 if self._structure == _SHARED else self.config.max_actions)
        forgetting = self.config.forgetting
        self._half = math.inf if forgetting == 1.0 else math.log(0.5) / math.log(forgetting)
        self._spread = Spread(columns.width)
        self._begin(FeatureMap.make(self.config.features, columns.width))

    def _begin(self, features: FeatureMap) -> None:
        d = features.size
        self.features = features
        mapped = self.config.features
        self._ridge = np.full(d, self.config.ridge)
        if not isinstance(mapped, RawConfig):
            self._ridge[1 + features.width :] = mapped.ridge
        self._interval = int(min(_INTERVAL, max(32, d) if self._half < math.inf else math.inf, max(self._half, 1.0)))
        self._A, self._P = np.zeros((0, d, d)), np.zeros((0, d, d))
        self._b, self._m, self._L = (np.zeros((0, d)) for _ in range(3))
        self._age = np.zeros(0, np.int64)
        self._noise = np.zeros(2)
        self._grow(1 + len(self._words.ids))

    @classmethod
    def from_config(cls, config: RecursiveRidgeConfig, columns: Columns) -> RecursiveRidgeLearner:
        """Build it from ``policy.oracle``."""
        return cls(columns, config)

    @property
    def noise(self) -> float:
        """Standard deviation of a reward around its expectation: given, or estimated from errors before learning."""
        if self.config.noise is not None:
            return self.config.noise
        # Half the range stands for it before anything was seen, with the weight of one row.
        first = (0.5 * (self.columns.high - self.columns.low)) ** 2
        return math.sqrt((first + self._noise[0]) / (1.0 + self._noise[1]))

    def _grow(self, blocks: int) -> None:
        """Make room for so many regressions, twice as much each time."""
        there = len(self._A)
        if blocks <= there:
            return
        more = max(blocks, 2 * there) - there if there else blocks
        d = self.features.size
        self._A = np.concatenate([self._A, np.zeros((more, d, d))])
        self._P = np.concatenate([self._P, np.tile(np.diag(1.0 / self._ridge), (more, 1, 1))])
        self._b = np.concatenate([self._b, np.zeros((more, d))])
        self._m = np.concatenate([self._m, np.zeros((more, d))])
        self._L = np.concatenate([self._L, np.tile(self._ridge, (more, 1))])
        self._age = np.concatenate([self._age, np.zeros(more, np.int64)])

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        codes = self._words.learn(actions)
        self._grow(1 + len(self._words.ids))
        targets = targets - self.columns.low
        mapped = self.config.features
        if isinstance(mapped, FourierConfig) and not self.features.spread:
            first = mapped.warm_up - self._spread.rows
            self._spread.add(rows[:first])
            self._learn(rows[:first], codes[:first], targets[:first], w[:first])
            if self._spread.rows == mapped.warm_up:
                self.features = self.features.with_spread(mapped.bandwidth * self._spread.value())
            rows, codes, targets, w = rows[first:], codes[first:], targets[first:], w[first:]
        self._learn(rows, codes, targets, w)
        self.learned += len(actions)

    def _learn(self, rows: Float32, codes: Int64, targets: Float64, w: Float64) -> None:
        Z = self.features.transform(rows)
        at = 0
        while at < len(Z):
            at, shared, own = self._kernels.learn(
                Z, codes, targets, w, at, self._structure, self.config.forgetting, self._interval, _FAR,
                self._A, self._b, self._P, self._m, self._L, self._age, self._noise,
            )  # fmt: skip
            if shared:
                self._solve(0)
            if own:
                self._solve(int(codes[at - 1]))

    def _solve(self, k: int) -> None:
        """Compute inverse and solution of a regression from its statistics."""
        self._L[k] = penalties(self._A[k], self._ridge)
        self._P[k] = inverse(self._A[k], self._L[k])
        self._m[k] = self._P[k] @ self._b[k]
        self._age[k] = 0

    def fit_features(self, X: Float32, rewards: Float64) -> None:
        """Fit the network of neural features to a batch, and begin the regressions anew; nothing for other features."""
        if isinstance(self.config.features, NeuralConfig) and len(X) >= 2:
            self._begin(FeatureMap.fitted(self.config.features, X, rewards))
            self.learned = 0

    def oracle(self) -> RecursiveRidgeOracle:
        """Return what has been learned, as an oracle that no longer changes."""
        count = 1 + len(self._words.ids)
        theta = self._m[:count].copy()
        if self._structure == _HIERARCHICAL:
            theta[1:] += np.einsum("kij,kj->ki", self._P[1:count], self._L[1:count] * self._m[0])
        P = self._P[: count if self.config.uncertainty else 0].copy()
        if len(P) and self._unseen:
            P[0] = np.diag(1.0 / self._L[0])
        return RecursiveRidgeOracle(
            theta, P, self.features, self.columns, self.noise, shared=self._structure == _SHARED
        )  # fmt: skip

    @property
    def _unseen(self) -> bool:
        """Whether an action with code 0 was never seen, so that nothing is known of what sets it apart."""
        return self._structure == _HIERARCHICAL and not self._words.full

    def live(self) -> LiveRidge:
        """Return an oracle that follows what is learned; see ``Learner.live``. It sums in another order."""
        return LiveRidge(self)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        count = 1 + len(self._words.ids)
        upper = np.triu_indices(self.features.size)
        c = self.columns
        return {
            "A": self._A[:count, *upper],
            "P": self._P[:count, *upper],
            "b": self._b[:count].copy(),
            "m": self._m[:count].copy(),
            "L": self._L[:count].copy(),
            "age": self._age[:count].copy(),
            "noise": self._noise.copy(),
            "rows": self._spread.array(),
            **self.features.arrays(),
            "vocabulary": self._words.array(),
            "learned": np.array(self.learned),
            "config": np.frombuffer(self.config.model_dump_json().encode(), np.uint8),
            "settings": np.array([c.context, c.action, c.low, c.high]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> RecursiveRidgeLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        features, columns, _ = _form(arrays, 0)
        config = RecursiveRidgeConfig.model_validate_json(np.asarray(arrays["config"], np.uint8).tobytes())
        learner = cls(columns, config)
        learner._words = Vocabulary.from_array(learner._words.limit, arrays["vocabulary"])
        if features.size != learner.features.size:
            raise ValueError(f"a feature map of size {features.size} is not that of the configuration")
        learner._spread = Spread.from_array(arrays["rows"], features.width)
        learner._begin(features)
        count, d = 1 + len(learner._words.ids), features.size
        upper = np.triu_indices(d)
        for name in ("A", "P"):
            half = np.array(arrays[name], dtype=np.float64)
            if half.shape != (count, len(upper[0])):
                raise ValueError(f"statistics {name} {half.shape} do not fit {count - 1} actions of {d} features")
            whole = getattr(learner, f"_{name}")
            whole[:, *upper] = half
            whole[:, upper[1], upper[0]] = half
        for name, shape in (
            ("b", (count, d)),
            ("m", (count, d)),
            ("L", (count, d)),
            ("age", (count,)),
            ("noise", (2,)),
        ):
            target = getattr(learner, f"_{name}")
            array = np.array(arrays[name])
            if array.shape != shape or array.dtype != target.dtype:
                raise ValueError(f"statistics {name} {array.shape} do not fit {count - 1} actions of {d} features")
            target[...] = array
        if not all(np.isfinite(a).all() for a in (learner._A, learner._P, learner._b, learner._m, learner._L)):
            raise ValueError("statistics must be finite numbers")
        learner.learned = int(arrays["learned"])
        return learner


class LiveRidge:
    """A ``RecursiveRidgeLearner`` as an oracle: predicts from its statistics as they are."""

    def __init__(self, learner: RecursiveRidgeLearner) -> None:
        self._learner = learner

    kind: ClassVar[str] = RecursiveRidgeLearner.kind

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row."""
        learner = self._learner
        if learner._structure == _HIERARCHICAL:
            return self._moments(X, codes)[0]
        Z, blocks = learner.features.transform(X), self._blocks(codes)
        out = np.empty(len(Z))
        learner._kernels.score(Z, blocks, learner._m, out)
        out += learner.columns.low
        return out

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and standard deviation of each row's expected reward."""
        mean, std, Z = self._moments(X, codes)
        learner = self._learner
        if learner._unseen and not codes.all():
            new = codes == 0
            std[new] = learner.noise * np.sqrt((Z[new] ** 2 / learner._L[0]).sum(axis=1))
        return mean, std

    def _blocks(self, codes: Int64) -> Int64:
        return _checked(codes, len(self._learner.vocabulary), shared=self._learner._structure == _SHARED)

    def _moments(self, X: Float32, codes: Int64) -> tuple[Float64, Float64, Float64]:
        learner = self._learner
        Z = learner.features.transform(X)
        mean, std = np.empty(len(Z)), np.empty(len(Z))
        learner._kernels.follow(
            Z, self._blocks(codes), learner._P, learner._m, learner._L, learner._structure == _HIERARCHICAL,
            learner.columns.low, learner.noise, mean, std,
        )  # fmt: skip
        return mean, std, Z

    def arrays(self) -> Arrays:
        """Return those of the oracle at this moment."""
        return self._learner.oracle().arrays()


def _checked(codes: Int64, actions: int, *, shared: bool) -> Int64:
    """Return the regression of each row; raises ``IndexError`` where compiled code would read beyond the arrays."""
    from engine.oracles import ridge_kernels

    if shared:
        return np.zeros(len(codes), np.int64)
    blocks = np.ascontiguousarray(codes, dtype=np.int64)
    if not ridge_kernels.within(blocks, actions):
        raise IndexError(f"codes {blocks.min()} to {blocks.max()} for {actions} actions")
    return blocks


def _form(arrays: Arrays, more: int) -> tuple[FeatureMap, Columns, list[float]]:
    settings = np.array(arrays["settings"], dtype=np.float64)
    features = FeatureMap.from_arrays(arrays)
    if settings.shape != (4 + more,) or not np.isfinite(settings).all():
        raise ValueError(f"settings {settings.tolist()} are not those of a recursive ridge regression")
    numbers: list[float] = settings.tolist()
    context, action, low, high, *rest = numbers
    if context < 0 or action < 0 or context + action != features.width or not low < high:
        raise ValueError(f"settings {settings.tolist()} do not fit features of width {features.width}")
    return features, Columns(int(context), int(action), low, high), rest
