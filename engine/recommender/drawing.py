"""How a list is drawn from what the model expects of the candidates, and how likely a given list is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.config import SlateConfig
from engine.exploration import Exploration, Floor, make_exploration
from engine.prediction import Prediction
from engine.slates import PlackettLuce, Slate, cascade, conditional, marginals
from engine.slates.marginals import VectorGiven

Float64 = NDArray[np.float64]


def uniform_slate(count: int, slots: int, decision_id: str, salt: str) -> Slate:
    """Return a list in which every order of ``count`` candidates is as likely as any other.

    >>> slate = uniform_slate(4, 2, "d1", "leeway")
    >>> [round(p, 4) for p in slate.propensities]
    [0.25, 0.3333]
    """
    return PlackettLuce(np.full(count, 1.0 / count)).draw_slate(decision_id, salt, slots)


@dataclass(frozen=True, eq=False)
class Drawing:
    """Draws lists as a configuration says.

    Parameters
    ----------
    config
        Kind of the list and its exploration.
    uniform_share
        Share of uniform exploration that is mixed into the vector of every slot.
    """

    config: SlateConfig
    uniform_share: float = 0.0

    @cached_property
    def exploration(self) -> Exploration:
        """The exploration, for rewards of one item in units of their range."""
        inner = make_exploration(self.config.exploration, (0.0, 1.0))
        return Floor(inner, self.uniform_share, "mix") if self.uniform_share else inner

    def draw(self, prediction: Prediction, learned: int, slots: int, decision_id: str) -> Slate:
        """Return the list that belongs to a decision id; a pure function of its arguments.

        Parameters
        ----------
        prediction
            Of the candidates, in units of the range of one item's reward.
        learned : int
            Lists that the model has learned from.
        slots : int
            From 1 to the number of candidates.
        decision_id
            Decides the draw, with the salt.
        """
        salt = self.config.salt
        if self.config.kind == "cascade":
            return cascade(self.exploration, prediction, learned, slots, decision_id=decision_id, salt=salt)
        p = self.exploration.pmf(prediction, learned)
        supported = int(np.count_nonzero(p))
        slate = PlackettLuce(p).draw_slate(decision_id, salt, min(slots, supported))
        if slots <= supported:
            return slate
        # Of those that the exploration gives no chance at all, each is as likely as any other.
        rest = np.flatnonzero(p == 0.0)
        more = uniform_slate(len(rest), slots - supported, decision_id, f"{salt}/rest")
        vectors = np.zeros((slots, len(p)))
        vectors[:supported] = slate.vectors
        vectors[supported:, rest] = more.vectors
        return Slate((*slate.actions, *(int(rest[place]) for place in more.actions)), vectors)

    def propensities(self, prediction: Prediction, learned: int, items: Sequence[int]) -> Float64:
        """Return with which probability each slot of a given list would have been drawn, given the slots before it.

        Parameters
        ----------
        prediction, learned
            As of :meth:`draw`.
        items
            Index of the item in each slot.

        Returns
        -------
        ndarray of float64, shape (n_slots,)
        """
        given = self._given(prediction, learned)
        return np.array([given(items[:slot])[item] for slot, item in enumerate(items)])

    def marginals(self, prediction: Prediction, learned: int, items: Sequence[int], seed: int) -> Float64:
        """Return with which probability each slot has its item, whatever stands above; see ``engine.slates.marginals``.

        Parameters
        ----------
        prediction, learned, items
            As of :meth:`propensities`.
        seed
            Of the beginnings that are drawn where there are too many.

        Returns
        -------
        ndarray of float64, shape (n_slots,)
        """
        return marginals(self._given(prediction, learned), items, seed)

    def _given(self, prediction: Prediction, learned: int) -> VectorGiven:
        """Return what gives the vector of a slot, given the items that stand above it."""
        count = len(prediction.mean)
        if self.config.kind == "cascade":

            def of_what_is_left(taken: Sequence[int]) -> Float64:
                left = np.ones(count, dtype=np.bool_)
                left[list(taken)] = False
                vector = np.zeros(count)
                vector[left] = self.exploration.pmf(prediction.take(left), learned)
                return vector

            return of_what_is_left
        p = self.exploration.pmf(prediction, learned)

        def of_one_vector(taken: Sequence[int]) -> Float64:
            vector = conditional(p, taken)
            if not vector.any():
                vector[:] = 1.0 / (count - len(taken))
                vector[list(taken)] = 0.0
            return vector

        return of_one_vector
