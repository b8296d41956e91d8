"""What can be said about the oracle of a policy."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from engine.config.base import Model

Interaction = Literal["context:context", "context:action", "context:id", "action:action", "action:id"]
#: Products of features that a first-order oracle can have; ``id`` is the action's id.
INTERACTIONS: tuple[Interaction, ...] = get_args(Interaction)

_MaxActions = Annotated[int, Field(ge=1, le=1_000_000)]


class LinearOracleConfig(Model):
    """Per-action ridge regression, learned online from sufficient statistics."""

    kind: Literal["linear"] = "linear"
    ridge: float = Field(1.0, ge=1e-6, allow_inf_nan=False, description="less is lost in rounding beside many rows")
    forgetting: float = Field(
        1.0, gt=0.5, le=1.0, description="weight of an observation one update of its action later"
    )
    max_actions: int = Field(256, ge=1, description="actions with a regression of their own; others share one")


class _OnlineConfig(Model):
    bits: int = Field(18, ge=8, le=26, description="2^bits weights")
    rate: float = Field(0.5, gt=0, le=100, description="learning rate")
    interactions: tuple[Interaction, ...] = Field(
        ("context:action", "context:id"), description="products of features that are features too"
    )
    ridge: float = Field(1.0, gt=0, allow_inf_nan=False, description="of the standard deviation alone")
    max_actions: _MaxActions = Field(4_096, description="actions with features of their own")


class OnlineLinearConfig(_OnlineConfig):
    """First-order updates of hashed features, squared loss."""

    kind: Literal["online_linear"] = "online_linear"


class OnlineLogisticConfig(_OnlineConfig):
    """First-order updates of hashed features, log loss; for rewards that are 0 or 1 above all."""

    kind: Literal["online_logistic"] = "online_logistic"


_Ridge = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]


class FourierConfig(Model):
    """Random Fourier features (Rahimi and Recht 2007) beside the columns."""

    kind: Literal["fourier"] = "fourier"
    size: int = Field(128, ge=1, le=4_096, description="how many")
    bandwidth: float = Field(
        0.7, gt=0, allow_inf_nan=False, description="of the Gaussian kernel, as a share of how far rows lie apart"
    )
    warm_up: int = Field(50, ge=2, description="rows that say how far that is; the features are 0 until then")
    ridge: _Ridge = Field(0.1, description="of these features; policy.oracle.ridge is that of the columns")
    seed: int = Field(0, ge=0)


class NeuralConfig(Model):
    """The last hidden layer of a small network beside the columns; retraining fits it, online learning does not."""

    kind: Literal["neural"] = "neural"
    hidden: tuple[Annotated[int, Field(ge=1, le=1_024)], ...] = Field((32,), min_length=1, max_length=3)
    ridge: _Ridge = Field(1.0, description="of these features; policy.oracle.ridge is that of the columns")
    seed: int = Field(0, ge=0)


class RawConfig(Model):
    """The columns as they are."""

    kind: Literal["raw"] = "raw"


FeaturesConfig = Annotated[RawConfig | FourierConfig | NeuralConfig, Field(discriminator="kind")]


class RecursiveRidgeConfig(Model):
    """Ridge regression by rank-one updates, with its exact uncertainty."""

    kind: Literal["recursive_ridge"] = "recursive_ridge"
    structure: Literal["shared", "per_action", "hierarchical"] = Field(
        "hierarchical", description="one regression for all actions, one for each, or each drawn to the shared one"
    )
    features: FeaturesConfig = RawConfig()
    ridge: _Ridge = Field(1.0, description="pull towards zero, or towards the shared regression")
    forgetting: float = Field(1.0, gt=0.5, le=1.0, description="weight of an observation one update later")
    noise: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="standard deviation of the reward; default: estimated"
    )
    uncertainty: bool = Field(True, description="whether policies carry what uncertainty needs; false: smaller files")
    max_actions: _MaxActions = Field(256, description="actions with a regression of their own")


OracleConfig = Annotated[
    LinearOracleConfig | OnlineLinearConfig | OnlineLogisticConfig | RecursiveRidgeConfig,
    Field(discriminator="kind"),
]
