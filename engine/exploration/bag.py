"""Bagging: Thompson sampling by the bootstrap.

Agarwal, Hsu, Kale, Langford, Li and Schapire, *Taming the Monster: A Fast and Simple Algorithm for Contextual Bandits*,
ICML 2014 (section 4); Eckles and Kaptein, *Thompson sampling with the online bootstrap*, 2014.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config import ExplorationConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.prediction import Part, Prediction


class Bag(Exploration):
    """The share of an ensemble's members for which an action is the best; ties split a member's vote.

    How the members come to differ (resampling, one of them always learning each feedback) is the learner's matter.
    An action that no member votes for gets 0; wrap it in ``floor`` where logs are to be reused.

    Examples
    --------
    >>> import numpy as np
    >>> members = np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    >>> Bag().pmf(Prediction(members.mean(axis=0), members=members), learned=10).tolist()
    [0.375, 0.625]
    """

    kind: ClassVar[str] = "bag"
    needs: frozenset[Part] = frozenset({"members"})

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Bag:
        """Build it; there is nothing to configure."""
        return cls()

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the shares of votes."""
        assert prediction.members is not None
        return votes(prediction.members)


def votes(members: Float64) -> Float64:
    """Return the share of votes of each action; ``members`` has shape (n_members, n_actions)."""
    best = members == members.max(axis=1, keepdims=True)
    return np.asarray((best / np.count_nonzero(best, axis=1)[:, None]).mean(axis=0))
