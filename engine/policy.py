"""A policy: encoder, oracle and exploration, immutable, with a version. What serves."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numba
import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled, read
from engine.config import DecisionPoint, UCRL2OracleConfig
from engine.exploration import Exploration, make_exploration
from engine.features import Encoded, Encoder, Float32
from engine.oracles import EnsembleOracle, LinearLearner, Oracle, UncertainOracle, make_learner, predict
from engine.prediction import Part, Prediction
from engine.records import policy_version

Float64 = NDArray[np.float64]


class OracleFailure(Exception):  # noqa: N818  (handled, never shown as an error)
    """The oracle raised, or gave a score that is not a finite number."""


@dataclass(frozen=True, eq=False)
class Policy:
    """What turns a request into a probability vector.

    Parameters
    ----------
    name
        The decision point's name.
    point
        The decision point as it was when the policy was made: features, range of reward, exploration, salt.
    vocabulary
        Ids of the actions with codes 1, 2, ... in the oracle.
    oracle
        The regressor.
    generation
        0 before any training; grows with each promotion.
    update
        Counts the online updates within a generation.
    learned
        Number of feedbacks that the oracle has learned from; sets the exploration's schedule.
    created_ms
        When it was made; not part of its identity.
    uniform_share
        Share of uniform exploration that is mixed in: (1 - share) p + share / K. More than 0 after an alarm, when
        the oracle's word counts for less and data on every action is needed.
    """

    name: str
    point: DecisionPoint
    vocabulary: tuple[str, ...]
    oracle: Oracle
    generation: int
    update: int
    learned: int
    created_ms: int
    uniform_share: float = 0.0
    encoder: Encoder = field(init=False, repr=False)
    exploration: Exploration = field(init=False, repr=False)
    version: str = field(init=False)
    _unit: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", Encoder(self.point, self.vocabulary))
        exploration = make_exploration(self.point.policy.exploration, self.point.reward.range)
        missing = exploration.needs - _parts(self.oracle)
        if missing:
            raise ValueError(
                f"exploration {exploration.kind!r} needs {', '.join(sorted(missing))} of the oracle, which "
                f"{self.oracle.kind!r} does not give; choose another oracle or another exploration"
            )
        object.__setattr__(self, "exploration", exploration)
        object.__setattr__(self, "version", policy_version(self.generation, self.update, self.digest()))
        low, high = self.point.reward.range
        object.__setattr__(self, "_unit", 1.0 / (high - low))

    def manifest(self) -> dict[str, object]:
        """Return what the policy is besides its oracle's arrays and its age, as plain JSON values."""
        return {
            "decision_point": self.name,
            "point": self.point.model_dump(mode="json"),
            "vocabulary": list(self.vocabulary),
            "oracle": self.oracle.kind,
            "generation": self.generation,
            "update": self.update,
            "learned": self.learned,
            "uniform_share": self.uniform_share,
        }

    def digest(self) -> str:
        """SHA-256 over manifest and arrays: the same content has the same digest, wherever it was made."""
        # The order of keys stays as it is: that of the features is the order of the columns.
        hasher = hashlib.sha256(json.dumps(self.manifest()).encode())
        for key, array in sorted(self.oracle.arrays().items()):
            hasher.update(f"{key}:{array.dtype.str}:{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def predict(self, encoded: Encoded) -> Prediction:
        """Return what the oracle says of every action, excluded ones too; raises ``OracleFailure``."""
        prediction = self._asked(encoded.X, encoded.codes)
        self._check(prediction, len(encoded.codes))
        return prediction

    def predict_each(self, requests: Sequence[Encoded]) -> list[Prediction | OracleFailure]:
        """Return what :meth:`predict` returns, or raises, for each of several requests, asking the oracle once.

        An oracle scores a row the same whichever rows stand beside it, so that a decision does not depend on which
        others were made with it. Where it fails on all of them together, it is asked for each alone.
        """
        if len(requests) == 1:
            return [self._predicted(requests[0])]
        try:
            together = self._asked(
                np.concatenate([request.X for request in requests]),
                np.concatenate([request.codes for request in requests]),
            )
            counts = [len(request.codes) for request in requests]
            self._check(together, sum(counts))
        except OracleFailure:
            return [self._predicted(request) for request in requests]
        ends = list(accumulate(counts))
        return [together.take(slice(end - count, end)) for count, end in zip(counts, ends, strict=True)]

    def _predicted(self, request: Encoded) -> Prediction | OracleFailure:
        try:
            return self.predict(request)
        except OracleFailure as failure:
            return failure

    def _asked(self, X: Float32, codes: NDArray[np.int64]) -> Prediction:
        try:
            return predict(self.oracle, X, codes, self.exploration.needs)
        except Exception as error:
            # Whatever goes wrong in a model must not cost the caller the decision.
            raise OracleFailure(f"{type(error).__name__}: {error}") from error

    def _check(self, prediction: Prediction, count: int) -> None:
        """Raise ``OracleFailure`` where scores are not finite numbers, one for each of ``count`` actions."""
        if prediction.mean.shape != (count,):
            raise OracleFailure(f"scores of shape {prediction.mean.shape} for {count} actions")
        if prediction.std is not None and not (prediction.std.shape == (count,) and prediction.std.min() >= 0.0):
            raise OracleFailure(f"std of shape {prediction.std.shape} for {count} actions, or one is negative or NaN")
        if prediction.members is not None and prediction.members.shape[1:] != (count,):
            raise OracleFailure(f"members' scores of shape {prediction.members.shape} for {count} actions")
        for name, values in (
            ("score", prediction.mean),
            ("std", prediction.std),
            ("member's score", prediction.members),
        ):
            # In units of the reward's range, as the exploration gets them; NaN fails the comparison too.
            if values is not None and not greatest(values) * self._unit <= sys.float_info.max:
                worst = values.flat[np.abs(values).argmax()]
                raise OracleFailure(f"{name} {worst} is not finite in units of the reward's range")

    def pmf(self, prediction: Prediction, available: NDArray[np.bool_]) -> Float64:
        """Return the probability of each action; 0 where it is not available."""
        if self._unit != 1.0:
            prediction = prediction.times(self._unit)
        if np.count_nonzero(available) == len(available):
            p = self.exploration.pmf(prediction, self.learned)
        else:
            p = np.zeros(len(available))
            p[available] = self.exploration.pmf(prediction.take(available), self.learned)
        if self.uniform_share:
            p = (1.0 - self.uniform_share) * p + self.uniform_share * uniform_pmf(available)
        return p

    def pmf_each(
        self, together: Prediction, ends: Sequence[int], available: Sequence[NDArray[np.bool_]] | None
    ) -> list[Float64]:
        """Return what :meth:`pmf` returns for each of several requests whose predictions stand in a row.

        Parameters
        ----------
        together
            Of all their actions.
        ends
            Where each request's actions end.
        available
            Of each request; ``None``: every action is.
        """
        if available is None and not self.uniform_share:
            if self._unit != 1.0:
                together = together.times(self._unit)
            return self.exploration.pmf_each(together, ends, self.learned)
        begins = (0, *ends[:-1])
        free = [np.ones(end - begin, np.bool_) for begin, end in zip(begins, ends, strict=True)]
        return [
            self.pmf(together.take(slice(begin, end)), its)
            for begin, end, its in zip(begins, ends, available or free, strict=True)
        ]


@compiled(numba.float64(read(numba.float64, 1)))
def _greatest(values: Float64) -> float:
    found = 0.0
    for value in values:
        if not abs(value) <= found:
            found = abs(value)
            if np.isnan(found):
                break
    return found


def greatest(values: Float64) -> float:
    """Return the greatest magnitude of any numbers, NaN where one is that.

    >>> greatest(np.array([0.5, -2.0])), greatest(np.array([[np.nan, 7.0]]))
    (2.0, nan)
    """
    plain = values if values.dtype == np.float64 and values.flags.c_contiguous else np.array(values, dtype=np.float64)
    return float(_greatest(plain.reshape(-1)))


def _parts(oracle: Oracle) -> set[Part]:
    """Return what an oracle gives beside the mean. The rows are the encoder's: any oracle goes with them."""
    given: set[Part] = {"rows"}
    if isinstance(oracle, UncertainOracle):
        given.add("std")
    if isinstance(oracle, EnsembleOracle):
        given.add("members")
    return given


def uniform_pmf(available: NDArray[np.bool_]) -> Float64:
    """Return the fallback: every available action alike.

    >>> import numpy as np
    >>> uniform_pmf(np.array([True, False, True])).tolist()
    [0.5, 0.0, 0.5]
    """
    return available / np.count_nonzero(available)


def initial_policy(name: str, point: DecisionPoint, created_ms: int, generation: int = 0) -> Policy:
    """Return a policy that has learned nothing yet, so that it explores uniformly."""
    # No plan is made of nothing: it begins as any linear oracle does, with scores that are all alike.
    planned = isinstance(point.policy.oracle, UCRL2OracleConfig)
    oracle = LinearLearner(Encoder(point).width).oracle() if planned else make_learner(point).oracle()
    return Policy(name, point, (), oracle, generation, update=0, learned=0, created_ms=created_ms)
