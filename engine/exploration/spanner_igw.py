"""SpannerIGW: inverse gap weighting over a few actions that span all.

Zhu, Foster, Langford and Mineiro, *Contextual Bandits with Large Action Spaces: Made Practical*, ICML 2022.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from engine.config import ExplorationConfig, SpannerIGWConfig
from engine.exploration.base import GREATEST, Exploration, Float64, Range
from engine.exploration.candidates import Candidates, make_candidates, over
from engine.exploration.schedule import power
from engine.exploration.spanner import spanner
from engine.prediction import Part, Prediction


class SpannerIGW(Exploration):
    """Explore a spanner of the actions' rows in place of the actions: exploration grows with d, not with K.

    Each row is divided by sqrt(1 + d + gamma * gap_a), so that the spanner has actions that are informative for their
    price. Then, for the d actions of the spanner::

        p_a = 1 / (1 + d + gamma * gap_a)

    and the best action gets the rest (those that tie for it share). **All other actions get 0**, and which ones differs
    from request to request: only policies that stay within the spanner can be evaluated on such a log.

    It suits oracles whose score is linear, or nearly so, in the row. Two actions with equal rows and scores do not get
    the same: the spanner needs one of them.

    Parameters
    ----------
    gamma_scale, gamma_exponent
        gamma = scale * learned ** exponent.
    candidates
        Which actions the spanner is sought among. None: all.

    Notes
    -----
    The form is that of the authors' notebook. The paper's mixes with weight 1/2 and normalises; both have the same
    guarantee up to constants.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=np.float32)
    >>> explore = SpannerIGW(gamma_scale=0.0)
    >>> explore.pmf(Prediction(np.array([0.1, 0.2, 0.9]), rows=rows), learned=1).round(4).tolist()
    [0.3333, 0.3333, 0.3333]
    """

    kind: ClassVar[str] = "spanner_igw"
    needs: frozenset[Part] = frozenset({"rows"})

    def __init__(
        self, gamma_scale: float = 10.0, gamma_exponent: float = 0.5, candidates: Candidates | None = None
    ) -> None:
        self.gamma_scale = gamma_scale
        self.gamma_exponent = gamma_exponent
        self.candidates = candidates

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> SpannerIGW:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, SpannerIGWConfig)
        return cls(config.gamma_scale, config.gamma_exponent, make_candidates(config.candidates))

    def gamma(self, learned: int) -> float:
        """Return gamma after ``learned`` feedbacks; 0 before the first."""
        return power(self.gamma_scale, self.gamma_exponent, learned)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the vector."""
        gamma = self.gamma(learned)

        def weigh(considered: Prediction) -> Float64:
            assert considered.rows is not None
            scores = considered.mean
            with np.errstate(over="ignore"):
                gaps = np.minimum(scores.max() - scores, GREATEST)
                weighted = np.minimum(gamma * gaps, GREATEST)
            width = considered.rows.shape[1]
            spanning = spanner(considered.rows, 1.0 / np.sqrt(1.0 + width + weighted))
            p = np.zeros(len(scores))
            p[spanning] = 1.0 / (1.0 + len(spanning) + weighted[spanning])
            best = gaps == 0.0
            p[best] += (1.0 - p.sum()) / np.count_nonzero(best)
            return p

        return over(self.candidates, prediction, weigh)
