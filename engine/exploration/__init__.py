"""Explorations, one a file. A new one is a file and a line in ``EXPLORATIONS``."""

from __future__ import annotations

from engine.config import ExplorationConfig
from engine.exploration.base import Exploration
from engine.exploration.epsilon_greedy import EpsilonGreedy
from engine.exploration.squarecb import SquareCB
from engine.exploration.uniform import Uniform

__all__ = ["EXPLORATIONS", "EpsilonGreedy", "Exploration", "SquareCB", "Uniform", "make_exploration"]

EXPLORATIONS: dict[str, type[Exploration]] = {
    EpsilonGreedy.kind: EpsilonGreedy,
    SquareCB.kind: SquareCB,
    Uniform.kind: Uniform,
}


def make_exploration(config: ExplorationConfig) -> Exploration:
    """Return the exploration that ``policy.exploration`` describes."""
    return EXPLORATIONS[config.kind].from_config(config)
