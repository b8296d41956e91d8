"""What an exploration is: the map from what an oracle predicts to a probability vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled
from engine.config import ExplorationConfig
from engine.prediction import Part, Prediction

Float64 = NDArray[np.float64]

#: Stands for numbers beyond float64, so that an action whose gap is one keeps its support.
GREATEST = 1.7976931348623157e308

#: Least and greatest reward.
Range = tuple[float, float]


class Exploration(Protocol):
    """One way to explore: a subclass, immutable. The contract suite in ``tests/contract`` finds every one.

    A subclass gives ``from_config`` and ``vector``, and overrides ``minimum`` and ``due`` where it has more to say.

    Attributes
    ----------
    kind
        Its name in the configuration.
    needs
        What it needs of a prediction beside the mean; only oracles that give it can be combined with it.
    """

    kind: ClassVar[str]
    needs: frozenset[Part] = frozenset()

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Exploration:
        """Build it from its part of the configuration; ``reward_range`` is that of the decision point."""

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the probability of each action, see ``pmf``; ``prediction`` has been checked."""

    def pmf(self, prediction: Prediction, learned: int) -> Float64:
        """Return the probability of each action.

        Parameters
        ----------
        prediction
            Of each available action, in units of the width of the reward's range: reward / (high - low).
        learned : int
            Number of feedbacks that the oracle has learned from.

        Returns
        -------
        ndarray of float64, shape (n_actions,)
            Not negative, with sum 1. Actions with equal predictions get equal probabilities; the order of the actions
            does not matter.

        Raises
        ------
        ValueError
            Where a part that it needs is missing or has another shape, or a number is not finite.
        """
        return self.vector(self._checked(prediction), learned)

    def pmf_each(self, together: Prediction, ends: Sequence[int], learned: int) -> list[Float64]:
        """Return what :meth:`pmf` returns for each of several requests whose predictions stand in a row, to the bit.

        ``ends``: where the actions of each end.
        """
        begins = (0, *ends[:-1])
        return [self.pmf(together.take(slice(begin, end)), learned) for begin, end in zip(begins, ends, strict=True)]

    def minimum(self, count: int, learned: int) -> float:
        """Return the least probability that it promises each of ``count`` actions; 0: none.

        Holds for scores within the reward's range. Off-policy evaluation of any other policy needs it to be positive.
        """
        return 0.0

    def due(self, served: int, learned: int) -> bool:
        """Say whether a policy that had learned ``served`` feedbacks is to give way to one that has ``learned``.

        Always, but for explorations in epochs: their guarantee holds for oracles that stay as they are within one.
        """
        return True

    def _checked(self, prediction: Prediction) -> Prediction:
        """Return the parts that it needs, as arrays that compiled code reads; raises where one cannot be used."""
        mean = prediction.mean
        if mean.ndim != 1 or not len(mean):
            raise ValueError(f"scores have shape {mean.shape}; give one number for each of one or more actions")
        mean = _numbers("score", mean)
        if not self.needs:
            return prediction if mean is prediction.mean else Prediction(mean)
        count = len(mean)
        std, members, rows = prediction.std, prediction.members, prediction.rows
        if "std" in self.needs:
            if std is None or std.shape != mean.shape:
                raise ValueError(f"{self.kind} needs std, one for each of {count} actions; use an oracle that gives it")
            std = _numbers("std", std)
            if std.min() < 0.0:
                raise ValueError(f"std {std.min()} is negative")
        if "members" in self.needs:
            if members is None or members.ndim != 2 or members.shape[1] != count or not len(members):
                raise ValueError(f"{self.kind} needs members, shape (n, {count}); use an oracle that gives them")
            members = _numbers("member's score", members)
        if "rows" in self.needs:
            if rows is None or rows.ndim != 2 or len(rows) != count:
                raise ValueError(f"{self.kind} needs rows, one for each of {count} actions; hand them over")
            rows = _plain(rows, np.float32)
        return Prediction(mean, std, members, rows)


def _numbers(name: str, values: Float64) -> Float64:
    plain: Float64 = _plain(values, np.float64)
    index = _first_infinite(plain.reshape(-1))
    if index >= 0:
        raise ValueError(f"{name} {values.flat[index]} of action {index % values.shape[-1]} is not finite")
    return plain


def _plain(values: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Return the same in the one layout in memory that compiled code was compiled for."""
    # carray: contiguous in C's order, aligned, writeable.
    return values if values.dtype == dtype and values.flags.carray else np.array(values, dtype=dtype, order="C")


@compiled("int64(float64[::1])")
def _first_infinite(values: Float64) -> int:
    for index in range(len(values)):
        if not np.isfinite(values[index]):
            return index
    return -1
