"""What can be said about the oracle of a policy."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from engine.config.base import Model
from engine.prediction import Part

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

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows"})


class _OnlineConfig(Model):
    bits: int = Field(18, ge=8, le=26, description="2^bits weights")
    rate: float = Field(0.5, gt=0, le=100, description="learning rate")
    interactions: tuple[Interaction, ...] = Field(
        ("context:action", "context:id"), description="products of features that are features too"
    )
    ridge: float = Field(1.0, gt=0, allow_inf_nan=False, description="of the standard deviation alone")
    max_actions: _MaxActions = Field(4_096, description="actions with features of their own")

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows", "std"})


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

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows", "std"} if self.uncertainty else {"rows"})


class TreesConfig(Model):
    """Gradient-boosted trees (LightGBM), fitted anew from the latest feedback now and then."""

    kind: Literal["trees"] = "trees"
    trees: int = Field(100, ge=1, le=10_000)
    leaves: int = Field(15, ge=2, le=4_096, description="most leaves of one tree")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    min_child: int = Field(10, ge=1, description="fewest feedbacks in a leaf")
    update: Literal["refit", "continue"] = Field(
        "refit", description="continue: a tenth as many trees more, until there are twice as many; then refit"
    )
    memory: int = Field(20_000, ge=10, description="latest feedbacks that it is fitted on")
    every: int = Field(500, ge=1, description="feedbacks from one fit to the next; longer while they are many")
    max_actions: _MaxActions = Field(1_024, description="actions that the trees can tell apart by id")
    seed: int = Field(0, ge=0)

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows"})


Estimator = Literal[
    "SGDRegressor",
    "Ridge",
    "Lasso",
    "ElasticNet",
    "HuberRegressor",
    "BayesianRidge",
    "MLPRegressor",
    "DecisionTreeRegressor",
    "RandomForestRegressor",
    "ExtraTreesRegressor",
]
#: scikit-learn regressors whose fitted form is arrays, which files can hold.
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


class SklearnConfig(Model):
    """A regressor of scikit-learn, fitted anew from the latest feedback now and then."""

    kind: Literal["sklearn"] = "sklearn"
    estimator: Estimator
    parameters: dict[str, bool | int | float | str | tuple[int, ...] | None] = Field(
        {}, description="as the estimator's constructor takes them"
    )
    memory: int = Field(20_000, ge=10, description="latest feedbacks that it is fitted on")
    every: int = Field(500, ge=1, description="feedbacks from one fit to the next; longer while they are many")
    max_actions: _MaxActions = Field(64, description="actions with an indicator column of their own")
    seed: int = Field(0, ge=0)

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows"})


BaseOracleConfig = Annotated[
    LinearOracleConfig | OnlineLinearConfig | OnlineLogisticConfig | RecursiveRidgeConfig,
    Field(discriminator="kind"),
]


class EnsembleConfig(Model):
    """Several oracles of one kind, made to differ by an online bootstrap."""

    kind: Literal["ensemble"] = "ensemble"
    base: BaseOracleConfig = LinearOracleConfig()
    members: int = Field(10, ge=2, le=200)
    bootstrap: Literal["poisson", "double_or_nothing"] = Field("poisson", description="weights of a row")
    seed: int = Field(0, ge=0)

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows", "std", "members"})


class CoverOracleConfig(Model):
    """The policies of Online Cover; for ``exploration: cover``."""

    kind: Literal["cover"] = "cover"
    base: BaseOracleConfig = OnlineLinearConfig()
    policies: int = Field(4, ge=2, le=64)
    psi: float = Field(0.1, ge=0, allow_inf_nan=False, description="what neglect by the policies before is worth")
    propensity_floor: float = Field(0.01, gt=0, le=1, description="propensities below count as this")

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows", "std", "members"})


class InterceptsConfig(Model):
    """An intercept for each action around an oracle that all actions share."""

    kind: Literal["intercepts"] = "intercepts"
    base: BaseOracleConfig = RecursiveRidgeConfig(structure="shared")
    shrinkage: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="feedbacks that the assumption of none weighs"
    )
    max_actions: _MaxActions = Field(4_096, description="actions with an intercept")

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return self.base.gives


OracleConfig = Annotated[
    LinearOracleConfig
    | OnlineLinearConfig
    | OnlineLogisticConfig
    | RecursiveRidgeConfig
    | TreesConfig
    | SklearnConfig
    | EnsembleConfig
    | CoverOracleConfig
    | InterceptsConfig,
    Field(discriminator="kind"),
]
