"""First-order oracles: hashed features with interactions, learned by normalised adaptive importance-aware gradients.

Ross, Mineiro and Langford, *Normalized Online Learning*, UAI 2013 (algorithm NAG); Karampatziakis and Langford,
*Online Importance Weight Aware Updates*, UAI 2011; Weinberger et al., *Feature Hashing for Large Scale Multitask
Learning*, ICML 2009. These are the updates of Vowpal Wabbit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from engine.config.oracle import INTERACTIONS, OnlineLinearConfig, OnlineLogisticConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, batch
from engine.oracles.by_code import ByCode
from engine.oracles.columns import Columns
from engine.oracles.vocabulary import Vocabulary


@dataclass(slots=True)
class Tables:
    """What a first-order oracle consists of.

    Attributes
    ----------
    w, s, G, H : ndarray of float64, shape (2^bits,)
        Weight of each entry; greatest absolute value of its feature; sum of squared gradients; sum of squared
        features (the diagonal of the Hessian of the loss).
    state : ndarray of float64, shape (3,)
        Sum of the normalised squared norms of the rows, of their weights, and of their squared errors before
        learning them.
    """

    w: Float64
    s: Float64
    G: Float64
    H: Float64
    state: Float64

    @classmethod
    def empty(cls, bits: int) -> Tables:
        """Return tables that have learned nothing."""
        w, s, G, H = np.zeros((4, 2**bits))
        return cls(w, s, G, H, np.zeros(3))

    def copy(self) -> Tables:
        """Return a copy that cannot be changed."""
        tables = Tables(self.w.copy(), self.s.copy(), self.G.copy(), self.H.copy(), self.state.copy())
        for array in (tables.w, tables.s, tables.G, tables.H, tables.state):
            array.flags.writeable = False
        return tables

    def arrays(self, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Return the entries that were ever touched, of the tables of these names, and the state."""
        touched = np.flatnonzero(self.s)
        return {
            "touched": touched.astype(np.uint32),
            "state": self.state.copy(),
            **{name: getattr(self, name)[touched] for name in names},
        }

    @classmethod
    def from_arrays(cls, bits: int, arrays: Arrays, names: Sequence[str]) -> Tables:
        """Build them again; raises ``ValueError`` where the arrays do not fit each other."""
        tables = cls.empty(bits)
        touched = np.array(arrays["touched"], dtype=np.int64)
        values = {name: np.array(arrays[name], dtype=np.float64) for name in names}
        state = np.array(arrays["state"], dtype=np.float64)
        if touched.ndim != 1 or not (np.diff(touched) > 0).all() or not ((touched >= 0) & (touched < 2**bits)).all():
            raise ValueError(f"touched must be ascending entries of a table of 2^{bits}")
        if state.shape != (3,) or any(value.shape != touched.shape for value in values.values()):
            raise ValueError(f"tables {[v.shape for v in values.values()]} do not fit {touched.shape} touched entries")
        if not all(np.isfinite(value).all() for value in (state, *values.values())):
            raise ValueError("tables must be finite numbers")
        for name, value in values.items():
            getattr(tables, name)[touched] = value
        tables.state = state
        return tables


class OnlineOracle:
    """Expected reward is linear (or logistic) in hashed features of context, action, action id and their pairs.

    Features of a row are 1, each column, the action's id, and the products that ``interactions`` names; each is an
    entry of one table of weights, found by hash, and two that collide share a weight.

    ``predict_std`` is the **diagonal approximation**: it takes the Hessian of the loss for its diagonal H, ::

        std^2 = noise^2 * sum_i x_i^2 / (ridge s_i^2 + H_i)

    with the mean squared error so far as the noise. It ignores how features move together, so that it is not the
    posterior of ``recursive_ridge``; it falls with data and is large for what was never seen.

    Parameters
    ----------
    tables
        What was learned.
    columns
        The form of the rows.
    pairs : ndarray of bool, shape (5,)
        Which of ``engine.config.oracle.INTERACTIONS`` there are.
    ridge : float
        Of the standard deviation alone.
    start : float
        Expected of a row of which nothing is known, where the loss is squared.
    """

    kind: ClassVar[str]
    logistic: ClassVar[bool]

    def __init__(self, tables: Tables, columns: Columns, pairs: NDArray[np.bool_], ridge: float, start: float) -> None:
        from engine.oracles import online_kernels

        self._score = online_kernels.score
        self._tables = tables
        self._columns = columns
        self._pairs = pairs
        self._ridge = ridge
        self._start = start

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        return self._rewards(self._scores(X, codes, uncertain=False)[0])

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and standard deviation of each row's expected reward; see ``UncertainOracle``."""
        scores, variance = self._scores(X, codes, uncertain=True)
        _, weight, squares = self._tables.state
        unit = self._columns.high - self._columns.low
        # Half the range stands for the noise before anything was seen, with the weight of one row.
        std = np.sqrt(variance * ((0.25 + squares) / (1.0 + weight))) * unit
        mean = self._rewards(scores)
        if self.logistic:
            mu = (mean - self._columns.low) / unit
            # Of the score, by the slope of the link; and no more than the range is wide.
            std = np.minimum(np.sqrt(variance) * np.maximum(mu * (1.0 - mu), 1e-6), 1.0) * unit
        return mean, std

    def _scores(self, X: Float32, codes: Int64, *, uncertain: bool) -> tuple[Float64, Float64]:
        if X.shape[1] != self._columns.width:
            raise ValueError(f"rows have {X.shape[1]} columns, and the oracle {self._columns.width}")
        t = self._tables
        out, variance = np.empty(len(X)), np.empty(len(X))
        rows = np.ascontiguousarray(X, dtype=np.float32)
        codes = np.ascontiguousarray(codes, dtype=np.int64)
        self._score(
            rows, codes, self._columns.context, self._pairs, t.w, t.s, t.H, self._ridge, out, variance, uncertain
        )
        return out, variance

    def _rewards(self, scores: Float64) -> Float64:
        if self.logistic:
            with np.errstate(over="ignore"):
                scores = 1.0 / (1.0 + np.exp(-scores))
        mean: Float64 = self._start + (self._columns.high - self._columns.low) * scores
        return mean

    def arrays(self) -> Arrays:
        """Return the weights that were ever touched, and the settings."""
        bits = len(self._tables.w).bit_length() - 1
        c = self._columns
        return {
            **self._tables.arrays(("w", "s", "H")),
            "pairs": self._pairs,
            "settings": np.array([bits, c.context, c.action, c.low, c.high, self._start, self._ridge]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Build it from its arrays; raises ``ValueError`` where they are damaged."""
        columns, pairs, bits, (start, ridge) = _settings(arrays, 1)
        return cls(Tables.from_arrays(bits, arrays, ("w", "s", "H")).copy(), columns, pairs, ridge, start)


class OnlineLinearOracle(OnlineOracle):
    """``OnlineOracle`` for squared loss."""

    kind: ClassVar[str] = "online_linear"
    logistic: ClassVar[bool] = False


class OnlineLogisticOracle(OnlineOracle):
    """``OnlineOracle`` for log loss: expected rewards never leave the declared range."""

    kind: ClassVar[str] = "online_logistic"
    logistic: ClassVar[bool] = True


class OnlineLearner(ByCode):
    """Learns an ``OnlineOracle``, one row after the other, in a few microseconds each.

    The step of weight i for a row of importance h is along ``x_i / (s_i sqrt(G_i))`` times ``sqrt(t / N)``: AdaGrad's
    rate, free of the features' units. Its length is the closed form of infinitely many steps of importance h / n, so
    that no importance overshoots the target. Rewards are learned in units of their range, from its low end, or its high
    one: what was never tried is then expected to be the best, and is tried (optimistic initial values; Sutton and
    Barto, *Reinforcement Learning*, 2nd ed., section 2.6).

    A weight of 3 is three times the row in that sense, to the extent that G does not change in between; batches are
    learned row by row, so any split into batches gives the same bits.

    Parameters
    ----------
    columns
        The form of the rows.
    bits : int
        2^bits weights.
    rate : float
        Learning rate.
    interactions : sequence of str
        Some of ``engine.config.oracle.INTERACTIONS``.
    ridge : float
        Of the standard deviation alone: the weight of what is assumed before data.
    max_actions : int
        How many actions get features of their own.
    start : str
        ``low`` or ``high``: where rewards are learned from, where the loss is squared.
    """

    kind: ClassVar[str]
    _oracle: ClassVar[type[OnlineOracle]]

    def __init__(
        self,
        columns: Columns,
        *,
        bits: int = 18,
        rate: float = 0.5,
        interactions: Sequence[str] = ("context:action", "context:id"),
        ridge: float = 1.0,
        max_actions: int = 4_096,
        start: str = "low",
    ) -> None:
        from engine.oracles import online_kernels

        super().__init__(columns, max_actions)
        self._learn = online_kernels.learn
        self._bits = bits
        self._rate = rate
        self._ridge = ridge
        self._pairs = np.array([name in interactions for name in INTERACTIONS])
        self._tables = Tables.empty(bits)
        self._start = columns.high if start == "high" else columns.low

    @classmethod
    def from_config(cls, config: OnlineLinearConfig | OnlineLogisticConfig, columns: Columns) -> Self:
        """Build it from ``policy.oracle``."""
        return cls(
            columns,
            bits=config.bits,
            rate=config.rate,
            interactions=config.interactions,
            ridge=config.ridge,
            max_actions=config.max_actions,
            start=config.start if isinstance(config, OnlineLinearConfig) else "low",
        )

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        c, t = self.columns, self._tables
        targets = (targets - self._start) / (c.high - c.low)
        if self._oracle.logistic:
            targets = np.clip(targets, 0.0, 1.0)
        codes = self._words.learn(actions)
        self._learn(
            rows, codes, targets, w, c.context, self._pairs, self._oracle.logistic,
            self._rate, self._ridge, t.w, t.s, t.G, t.H, t.state,
        )  # fmt: skip
        self.learned += len(actions)

    def oracle(self) -> OnlineOracle:
        """Return what has been learned, as an oracle that no longer changes."""
        return self._oracle(self._tables.copy(), self.columns, self._pairs, self._ridge, self._start)

    def live(self) -> OnlineOracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return self._oracle(self._tables, self.columns, self._pairs, self._ridge, self._start)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        c = self.columns
        return {
            **self._tables.arrays(("w", "s", "G", "H")),
            "pairs": self._pairs,
            "vocabulary": self._words.array(),
            "learned": np.array(self.learned),
            "settings": np.array(
                [
                    self._bits,
                    c.context,
                    c.action,
                    c.low,
                    c.high,
                    self._start,
                    self._ridge,
                    self._rate,
                    self._words.limit,
                ]
            ),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        columns, pairs, bits, (start, ridge, rate, limit) = _settings(arrays, 3)
        names = [name for name, there in zip(INTERACTIONS, pairs, strict=True) if there]
        learner = cls(columns, bits=bits, rate=rate, interactions=names, ridge=ridge, max_actions=int(limit))
        learner._start = start
        learner._tables = Tables.from_arrays(bits, arrays, ("w", "s", "G", "H"))
        learner._words = Vocabulary.from_array(int(limit), arrays["vocabulary"])
        learner.learned = int(arrays["learned"])
        return learner


class OnlineLinearLearner(OnlineLearner):
    """``OnlineLearner`` for squared loss."""

    kind: ClassVar[str] = "online_linear"
    _oracle: ClassVar[type[OnlineOracle]] = OnlineLinearOracle


class OnlineLogisticLearner(OnlineLearner):
    """``OnlineLearner`` for log loss, for rewards that are 0 or 1 above all; targets are clipped to the range."""

    kind: ClassVar[str] = "online_logistic"
    _oracle: ClassVar[type[OnlineOracle]] = OnlineLogisticOracle


def _settings(arrays: Arrays, more: int) -> tuple[Columns, NDArray[np.bool_], int, list[float]]:
    settings = np.array(arrays["settings"], dtype=np.float64)
    given = np.array(arrays["pairs"])
    if settings.shape != (6 + more,) or not np.isfinite(settings).all() or not 1 <= settings[0] <= 30:
        raise ValueError(f"settings {settings.tolist()} are not those of a first-order oracle")
    pairs = given.astype(np.bool_)
    if given.shape != (len(INTERACTIONS),) or given.dtype != np.bool_:
        raise ValueError(f"pairs must say yes or no to each of {', '.join(INTERACTIONS)}")
    numbers: list[float] = settings.tolist()
    bits, context, action, low, high, *rest = numbers
    if min(context, action) < 0 or not low < high or rest[0] not in (low, high):
        raise ValueError(f"settings {settings.tolist()} are not those of a first-order oracle")
    return Columns(int(context), int(action), low, high), pairs, int(bits), rest
