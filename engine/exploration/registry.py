"""The table of explorations by kind. The package fills it; explorations around another one look theirs up."""

from __future__ import annotations

from engine.config import ExplorationConfig
from engine.exploration.base import Exploration, Range

EXPLORATIONS: dict[str, type[Exploration]] = {}


def make_exploration(config: ExplorationConfig, reward_range: Range) -> Exploration:
    """Return the exploration that ``policy.exploration`` describes, for rewards in ``reward_range``."""
    return EXPLORATIONS[config.kind].from_config(config, reward_range)
