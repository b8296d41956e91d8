"""What an oracle is: a regressor of expected reward from (context, action); and what learns one online."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.prediction import Part, Prediction

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Arrays = Mapping[str, NDArray[np.generic]]


class Oracle(Protocol):
    """A fitted regressor. What ``Learner.oracle`` returns never changes: many threads may ask it at once."""

    @property
    def kind(self) -> str:
        """Its name in the configuration and in files."""

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row.

        Parameters
        ----------
        X : ndarray of float32, shape (n_rows, width)
            Encoded (context, action) pairs.
        codes : ndarray of int64, shape (n_rows,)
            Code of each row's action; 0: an action that the oracle never saw.
        """

    def arrays(self) -> Arrays:
        """Return everything that the oracle is, as arrays without Python objects."""


class StoredOracle(Oracle, Protocol):
    """A kind of oracle that files hold."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Oracle:
        """Build it again from ``arrays``, bit for bit; raises ``ValueError`` where they do not fit each other."""


@runtime_checkable
class UncertainOracle(Protocol):
    """An oracle that knows how sure it is."""

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and standard deviation of each row's expected reward; the mean is that of ``predict``."""


@runtime_checkable
class EnsembleOracle(Protocol):
    """An oracle of several members."""

    def predict_members(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return the mean, that of ``predict``, and what each member expects, shape (n_members, n_rows)."""


class Learner(Protocol):
    """Learns an oracle from feedback, one batch after the other. One thread uses it.

    Attributes
    ----------
    learned
        Number of feedbacks so far.
    """

    learned: int

    @property
    def kind(self) -> str:
        """Its name in the configuration."""

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""

    @property
    def width(self) -> int:
        """Columns of X."""

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order.

        Parameters
        ----------
        X : ndarray of float32, shape (n_rows, width)
            Encoded (context, chosen action) pairs.
        actions : sequence of str, length n_rows
            Ids of the chosen actions.
        rewards : ndarray of float64, shape (n_rows,)
        weights : ndarray of float64, shape (n_rows,), optional
            Importance of each row; 1 by default.
        """

    def oracle(self) -> Oracle:
        """Return what has been learned, as an oracle that no longer changes."""

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned, without a copy.

        For loops that decide and learn in one thread, such as simulations: it always predicts as ``oracle()`` at that
        moment would, and the one call is enough. It must never be published, nor asked by another thread.
        """

    def arrays(self) -> Arrays:
        """Return the statistics, from which ``from_arrays`` goes on as if nothing had happened."""


@runtime_checkable
class DiscountingLearner(Protocol):
    """A learner that can let what it knows count for less."""

    def discount(self, weight: float) -> None:
        """Let all that was learned so far count for ``weight`` of what it did, in (0, 1]."""


class StoredLearner(Learner, Protocol):
    """A kind of learner that files hold."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Learner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""


def batch(
    X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None, width: int
) -> tuple[Float32, Float64, Float64]:
    """Return the rows, rewards and weights of a batch as contiguous arrays; raises ``ValueError`` naming what is wrong.

    Weights are 1 where there are none; they must be finite and not negative.
    """
    count = len(actions)
    rows = np.ascontiguousarray(X, dtype=np.float32)
    targets = np.ascontiguousarray(rewards, dtype=np.float64)
    w = np.ones(count) if weights is None else np.ascontiguousarray(weights, dtype=np.float64)
    if rows.shape != (count, width) or targets.shape != (count,) or w.shape != (count,):
        raise ValueError(
            f"X {rows.shape}, rewards {targets.shape} and weights {w.shape} do not fit {count} actions of width {width}"
        )
    # A sum that is finite has no summand that is not; only where it is not is it looked at closely.
    if not math.isfinite(targets.sum()) and not np.isfinite(targets).all():
        raise ValueError(f"rewards[{int(np.argmin(np.isfinite(targets)))}] is not finite")
    if weights is not None and count and not (w.min() >= 0.0 and w.max() < np.inf):
        raise ValueError(f"weights must be finite and not negative, got {w.min()} to {w.max()}")
    return rows, targets, w


def _with_std(oracle: Oracle, X: Float32, codes: Int64) -> Prediction:
    # Asked for the one method: isinstance of a protocol takes longer than a prediction.
    ask = getattr(oracle, "predict_std", None)
    if ask is None:
        raise TypeError(f"oracle {oracle.kind!r} has no uncertainty; choose an exploration that needs none")
    mean, std = ask(X, codes)
    return Prediction(mean, std=std)


def _with_members(oracle: Oracle, X: Float32, codes: Int64) -> Prediction:
    ask = getattr(oracle, "predict_members", None)
    if ask is None:
        raise TypeError(f"oracle {oracle.kind!r} has no members; choose an exploration that needs none")
    mean, members = ask(X, codes)
    return Prediction(mean, members=members)


def _with_rows(oracle: Oracle, X: Float32, codes: Int64) -> Prediction:
    return Prediction(oracle.predict(X, codes), rows=X)


_ASK: dict[frozenset[Part], Callable[[Oracle, Float32, Int64], Prediction]] = {
    frozenset(): lambda oracle, X, codes: Prediction(oracle.predict(X, codes)),
    frozenset({"std"}): _with_std,
    frozenset({"members"}): _with_members,
    frozenset({"rows"}): _with_rows,
}


def predict(oracle: Oracle, X: Float32, codes: Int64, needs: frozenset[Part]) -> Prediction:
    """Ask an oracle for what an exploration needs; raises ``TypeError`` where it cannot give it."""
    return _ASK[needs](oracle, X, codes)
