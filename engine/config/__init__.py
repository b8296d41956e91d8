"""What can be said about a decision point and its server: the part of the YAML that the engine reads.

Every model refuses unknown keys, so that a typing error is an error. Defaults here are the defaults of the
product; ``leeway init`` writes them out with comments.
"""

from __future__ import annotations

from engine.config.base import FLOAT32_MAX, NAME, WRITTEN, Milliseconds, Model, Name, Scale, parse_duration
from engine.config.exploration import EpsilonGreedyConfig, ExplorationConfig, SquareCBConfig, UniformConfig
from engine.config.oracle import LinearOracleConfig, OracleConfig, UCRL2OracleConfig
from engine.config.point import (
    MAX_WIDTH,
    ActionsConfig,
    DecisionPoint,
    Feature,
    NumberFeature,
    PolicyConfig,
    RewardConfig,
    TextFeature,
    VectorFeature,
)
from engine.config.serving import ServingConfig

__all__ = [
    "FLOAT32_MAX",
    "MAX_WIDTH",
    "NAME",
    "WRITTEN",
    "ActionsConfig",
    "DecisionPoint",
    "EpsilonGreedyConfig",
    "ExplorationConfig",
    "Feature",
    "LinearOracleConfig",
    "Milliseconds",
    "Model",
    "Name",
    "NumberFeature",
    "OracleConfig",
    "PolicyConfig",
    "RewardConfig",
    "Scale",
    "ServingConfig",
    "SquareCBConfig",
    "TextFeature",
    "UCRL2OracleConfig",
    "UniformConfig",
    "VectorFeature",
    "parse_duration",
]
