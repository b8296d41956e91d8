"""What can be said about the exploration of a policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.config.base import Model


class SquareCBConfig(Model):
    """Inverse gap weighting with gamma = scale * learned ** exponent."""

    kind: Literal["squarecb"] = "squarecb"
    gamma_scale: float = Field(10.0, ge=0, allow_inf_nan=False)
    gamma_exponent: float = Field(0.5, ge=0, le=1)


class EpsilonGreedyConfig(Model):
    """The action of greatest score, but for a share epsilon that is spread evenly."""

    kind: Literal["epsilon_greedy"] = "epsilon_greedy"
    epsilon: float = Field(0.05, ge=0, le=1)


class UniformConfig(Model):
    """Every available action with the same probability."""

    kind: Literal["uniform"] = "uniform"


ExplorationConfig = Annotated[EpsilonGreedyConfig | SquareCBConfig | UniformConfig, Field(discriminator="kind")]
