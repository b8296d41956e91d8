"""What can be said about a decision point and its server: the part of the YAML that the engine reads.

Every model refuses unknown keys, so that a typing error is an error. Defaults here are the defaults of the
product; ``leeway init`` writes them out with comments.
"""

from __future__ import annotations

from engine.config.base import FLOAT32_MAX, NAME, WRITTEN, Milliseconds, Model, Name, Scale, parse_duration
from engine.config.exploration import ExplorationConfig, SquareCBConfig, UniformConfig
from engine.config.oracle import (
    CoverOracleConfig,
    EnsembleConfig,
    FourierConfig,
    InterceptsConfig,
    LinearOracleConfig,
    NeuralConfig,
    OnlineLinearConfig,
    OnlineLogisticConfig,
    OracleConfig,
    RecursiveRidgeConfig,
    SklearnConfig,
    TreesConfig,
)
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
    "CoverOracleConfig",
    "DecisionPoint",
    "EnsembleConfig",
    "ExplorationConfig",
    "Feature",
    "FourierConfig",
    "InterceptsConfig",
    "LinearOracleConfig",
    "Milliseconds",
    "Model",
    "Name",
    "NeuralConfig",
    "NumberFeature",
    "OnlineLinearConfig",
    "OnlineLogisticConfig",
    "OracleConfig",
    "PolicyConfig",
    "RecursiveRidgeConfig",
    "RewardConfig",
    "Scale",
    "ServingConfig",
    "SklearnConfig",
    "SquareCBConfig",
    "TextFeature",
    "TreesConfig",
    "UniformConfig",
    "VectorFeature",
    "parse_duration",
]
