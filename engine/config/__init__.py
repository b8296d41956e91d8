"""What can be said about a decision point and its server: the part of the YAML that the engine reads.

Every model refuses unknown keys, so that a typing error is an error. Defaults here are the defaults of the
product; ``leeway init`` writes them out with comments.
"""

from __future__ import annotations

from engine.config.base import FLOAT32_MAX, NAME, WRITTEN, Milliseconds, Model, Name, Scale, parse_duration
from engine.config.exploration import (
    BagConfig,
    CandidatesConfig,
    CapConfig,
    CappedIGWConfig,
    CoverConfig,
    EpsilonGreedyConfig,
    ExplorationConfig,
    FalconConfig,
    FastCBConfig,
    FirstConfig,
    FloorConfig,
    LinTSConfig,
    LinUCBConfig,
    RegCBConfig,
    SmoothIGWConfig,
    SoftmaxConfig,
    SpannerCandidatesConfig,
    SpannerIGWConfig,
    SquareCBConfig,
    TopConfig,
    UniformConfig,
)
from engine.config.oracle import LinearOracleConfig
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
    "BagConfig",
    "CandidatesConfig",
    "CapConfig",
    "CappedIGWConfig",
    "CoverConfig",
    "DecisionPoint",
    "EpsilonGreedyConfig",
    "ExplorationConfig",
    "FalconConfig",
    "FastCBConfig",
    "Feature",
    "FirstConfig",
    "FloorConfig",
    "LinTSConfig",
    "LinUCBConfig",
    "LinearOracleConfig",
    "Milliseconds",
    "Model",
    "Name",
    "NumberFeature",
    "PolicyConfig",
    "RegCBConfig",
    "RewardConfig",
    "Scale",
    "ServingConfig",
    "SmoothIGWConfig",
    "SoftmaxConfig",
    "SpannerCandidatesConfig",
    "SpannerIGWConfig",
    "SquareCBConfig",
    "TextFeature",
    "TopConfig",
    "UniformConfig",
    "VectorFeature",
    "parse_duration",
]
