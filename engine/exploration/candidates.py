"""Which actions are considered at all, where there are too many to weigh each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import CandidatesConfig, SpannerCandidatesConfig
from engine.exploration.base import Float64
from engine.exploration.spanner import spanner
from engine.prediction import Part, Prediction


class Candidates(Protocol):
    """A choice of actions to consider. **The others get probability 0**: there is no support for evaluating them.

    Attributes
    ----------
    needs
        What it needs of a prediction beside the mean.
    """

    needs: frozenset[Part]

    def select(self, prediction: Prediction) -> NDArray[np.int64]:
        """Return the indices of the actions that are considered, ascending; at least one."""


class Top:
    """The ``count`` best scores, and those that tie with the last of them.

    >>> import numpy as np
    >>> Top(2).select(Prediction(np.array([0.1, 0.7, 0.9, 0.7]))).tolist()
    [1, 2, 3]
    """

    needs: frozenset[Part] = frozenset()

    def __init__(self, count: int) -> None:
        self.count = count

    def select(self, prediction: Prediction) -> NDArray[np.int64]:
        """Return their indices."""
        scores = prediction.mean
        if len(scores) <= self.count:
            return np.arange(len(scores))
        place = len(scores) - self.count
        return np.flatnonzero(scores >= np.partition(scores, place)[place])


class TopAndSpanner:
    """The ``count`` best scores, and a spanner of all rows, so that every direction is tried."""

    needs: frozenset[Part] = frozenset({"rows"})

    def __init__(self, count: int) -> None:
        self._top = Top(count)

    def select(self, prediction: Prediction) -> NDArray[np.int64]:
        """Return their indices."""
        assert prediction.rows is not None
        spanning = spanner(prediction.rows, np.ones(len(prediction.rows)))
        return np.union1d(self._top.select(prediction), spanning)


def make_candidates(config: CandidatesConfig | None) -> Candidates | None:
    """Return the choice that ``candidates`` describes; none where all actions are considered."""
    if config is None:
        return None
    return TopAndSpanner(config.count) if isinstance(config, SpannerCandidatesConfig) else Top(config.count)


def over(candidates: Candidates | None, prediction: Prediction, weigh: Callable[[Prediction], Float64]) -> Float64:
    """Return the vector that ``weigh`` gives over the candidates, and 0 for the other actions."""
    if candidates is None:
        return weigh(prediction)
    considered = candidates.select(prediction)
    p = np.zeros(len(prediction.mean))
    p[considered] = weigh(prediction.take(considered))
    return p
