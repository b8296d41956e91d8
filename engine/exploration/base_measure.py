"""What SmoothIGW and CappedIGW have in common: the uniform measure over all actions that are considered."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Self

from engine.config import CappedIGWConfig, ExplorationConfig, SmoothIGWConfig
from engine.exploration.base import Exploration, Float64, Range
from engine.exploration.candidates import Candidates, make_candidates, over
from engine.exploration.schedule import power
from engine.prediction import Prediction


class BesideUniform(Exploration):
    """Inverse gap weighting beside the uniform measure over the candidates: a subclass says how.

    Parameters
    ----------
    gamma_scale, gamma_exponent
        gamma = scale * learned ** exponent.
    tau
        At least 1; its meaning is the subclass's.
    candidates
        Which actions are considered; the others get 0. None: all.
    """

    def __init__(
        self,
        gamma_scale: float = 10.0,
        gamma_exponent: float = 0.5,
        tau: float = 10.0,
        candidates: Candidates | None = None,
    ) -> None:
        self.gamma_scale = gamma_scale
        self.gamma_exponent = gamma_exponent
        self.tau = tau
        self.candidates = candidates
        if candidates is not None:
            self.needs = candidates.needs

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Self:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, SmoothIGWConfig | CappedIGWConfig)
        return cls(config.gamma_scale, config.gamma_exponent, config.tau, make_candidates(config.candidates))

    @abstractmethod
    def weigh(self, gamma: float, considered: Prediction) -> Float64:
        """Return the vector over the actions that are considered."""

    def gamma(self, learned: int) -> float:
        """Return gamma after ``learned`` feedbacks; 0 (uniform) before the first."""
        return power(self.gamma_scale, self.gamma_exponent, learned)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the vector."""
        return over(self.candidates, prediction, partial(self.weigh, self.gamma(learned)))
