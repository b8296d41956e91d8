"""RegCB: confidence bounds from regression.

Foster, Agarwal, Dudik, Luo and Schapire, *Practical Contextual Bandits with Regression Oracles*, ICML 2018.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from engine.config import ExplorationConfig, RegCBConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.greedy import greedy
from engine.exploration.plausible import plausible
from engine.prediction import Prediction


class RegCB(Exploration):
    """Bounds of each action's value: mean +- beta * sqrt(log(e + K n)) * std, or mean +- ``width``.

    Elimination: all actions alike whose upper bound reaches the greatest lower bound. Optimistic: the action with the
    greatest upper bound; those that tie for it share.

    The paper finds the bounds by a binary search over the weight of an invented observation, refitting the oracle
    for each, until the training loss has risen by a set amount. An oracle that serves cannot be refitted for each
    action of each request: the oracle's own standard deviation stands in for it. For ridge regression the two agree
    to first order; for other oracles the paper's guarantee is not claimed.

    Parameters
    ----------
    mode
        ``elimination`` or ``optimistic``.
    beta
        Standard deviations, before the slow growth with what was learned.
    width
        The same half width for each action, in units of the reward's range; then no std is needed.

    Notes
    -----
    Optimistic gives every other action 0, elimination those that are out: no support for the evaluation of policies
    that choose them. Wrap it in ``floor`` where the log is to be reused.

    Examples
    --------
    >>> import numpy as np
    >>> RegCB(width=0.1).pmf(Prediction(np.array([0.5, 0.4, 0.1])), learned=10).tolist()
    [0.5, 0.5, 0.0]
    """

    kind: ClassVar[str] = "regcb"

    def __init__(
        self, mode: Literal["elimination", "optimistic"] = "elimination", beta: float = 1.0, width: float | None = None
    ) -> None:
        self.mode = mode
        self.beta = beta
        self.width = width
        if width is None:
            self.needs = frozenset({"std"})

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> RegCB:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, RegCBConfig)
        return cls(config.mode, config.beta, config.width)

    def half_width(self, prediction: Prediction, learned: int) -> Float64 | float:
        """Return half the distance between the bounds, in units of the reward's range."""
        if prediction.std is None or self.width is not None:
            return self.width or 0.0
        with np.errstate(over="ignore"):
            beta = self.beta * math.sqrt(math.log(math.e + len(prediction.mean) * learned))
            return np.minimum(beta * prediction.std, np.finfo(np.float64).max)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the vector."""
        width = self.half_width(prediction, learned)
        if self.mode == "optimistic":
            with np.errstate(over="ignore"):
                return greedy(prediction.mean + width, 0.0)
        alive = plausible(prediction.mean, width)
        return alive / np.count_nonzero(alive)
