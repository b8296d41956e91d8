"""What an oracle is: a regressor of expected reward from (context, action); and what learns one online."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.prediction import Part, Prediction

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Arrays = Mapping[str, NDArray[np.generic]]


class Oracle(Protocol):
    """A fitted, immutable regressor; safe to be asked by many threads at once."""

    kind: ClassVar[str]

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

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Oracle:
        """Build it again from ``arrays``, bit for bit."""


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
    kind
        That of the oracle.
    vocabulary
        Ids of the actions with codes 1, 2, ... so far.
    learned
        Number of feedbacks so far.
    """

    kind: ClassVar[str]
    vocabulary: list[str]
    learned: int

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

    def arrays(self) -> Arrays:
        """Return the statistics, from which ``from_arrays`` goes on as if nothing had happened."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Learner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""


def _with_std(oracle: Oracle, X: Float32, codes: Int64) -> Prediction:
    if not isinstance(oracle, UncertainOracle):
        raise TypeError(f"oracle {oracle.kind!r} has no uncertainty; choose an exploration that needs none")
    mean, std = oracle.predict_std(X, codes)
    return Prediction(mean, std=std)


def _with_members(oracle: Oracle, X: Float32, codes: Int64) -> Prediction:
    if not isinstance(oracle, EnsembleOracle):
        raise TypeError(f"oracle {oracle.kind!r} has no members; choose an exploration that needs none")
    mean, members = oracle.predict_members(X, codes)
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
