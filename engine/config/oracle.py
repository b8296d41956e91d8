"""What can be said about the oracle of a policy."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from engine.config.base import Milliseconds, Model, Name
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
    start: Literal["low", "high"] = Field(
        "low", description="end of the range of rewards that is expected of what was never tried; high: it gets tried"
    )


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
    "HistGradientBoostingRegressor",
]
#: scikit-learn regressors whose fitted form is arrays, which files can hold.
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


#: Those with ``partial_fit``, and the parameters with which they have none.
_ONLINE: dict[Estimator, dict[str, object]] = {
    "SGDRegressor": {"early_stopping": True},
    "MLPRegressor": {"early_stopping": True, "solver": "lbfgs"},
}


class SklearnConfig(Model):
    """A regressor of scikit-learn: learns online if it can, else is fitted anew from the latest feedback."""

    kind: Literal["sklearn"] = "sklearn"
    estimator: Estimator
    parameters: dict[str, bool | int | float | str | tuple[int, ...] | None] = Field(
        {}, description="as the estimator's constructor takes them"
    )
    memory: int = Field(20_000, ge=10, description="latest feedbacks that it is fitted on, if it is fitted anew")
    every: int | None = Field(
        None,
        ge=1,
        description="feedbacks from one fit (500; longer while they are many) or step online (20) to the next",
    )
    max_actions: _MaxActions = Field(64, description="actions with an indicator column of their own")
    seed: int = Field(0, ge=0)

    @property
    def online(self) -> bool:
        """Whether it learns online, by scikit-learn's ``partial_fit``."""
        without = _ONLINE.get(self.estimator)
        return without is not None and not any(self.parameters.get(name) == value for name, value in without.items())

    @property
    def steps(self) -> int:
        """Feedbacks from one fit, or one step online, to the next."""
        return self.every or (20 if self.online else 500)

    @model_validator(mode="after")
    def _storable(self) -> SklearnConfig:
        if self.estimator == "HistGradientBoostingRegressor":
            loss = self.parameters.get("loss", "squared_error")
            if loss not in ("squared_error", "absolute_error", "quantile"):
                raise ValueError(
                    f"parameters.loss {loss!r}: its predictions are not a sum of leaves, which alone is stored; choose "
                    "squared_error, absolute_error or quantile"
                )
            if "categorical_features" in self.parameters:
                raise ValueError(
                    "parameters.categorical_features: splits by categories are not stored; leave it out, actions and "
                    "texts have columns of their own"
                )
        return self

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


Text = Annotated[str, Field(min_length=1)]
StateActions = Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]


class UCRL2OracleConfig(Model):
    """A plan over the states that a user goes through, learned online by UCRL2 (``engine.sequential``)."""

    kind: Literal["ucrl2"]
    state: Name = Field(description="text feature of the context that names the user's state")
    unit: Name = Field(description="text feature of the context that names the user, session or order in that state")
    states: dict[Text, StateActions] = Field(
        min_length=1, max_length=256, description="every state, and the actions that it may have"
    )
    terminal: tuple[Text, ...] = Field((), description="states whose decision is the last of its unit")
    idle: Milliseconds = Field(1_800_000, gt=0, description="after so long without a decision a unit is at its end")
    patience: Milliseconds = Field(10_000, ge=0, description="by how much feedback may come out of order")
    max_units: int = Field(100_000, ge=1, description="units that are remembered between two of their decisions")
    delta: float = Field(0.05, gt=0, lt=1, description="of the confidence sets, and of a false restart of a segment")
    width_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on the widths of the proof")
    restarts: bool = Field(True, description="begin anew when a detector says that the process has changed")

    @property
    def gives(self) -> frozenset[Part]:
        """What explorations can have of it beside the mean."""
        return frozenset({"rows"})

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions of all states, each once."""
        return tuple(dict.fromkeys(action for actions in self.states.values() for action in actions))

    @model_validator(mode="after")
    def _check(self) -> UCRL2OracleConfig:
        for state, actions in self.states.items():
            if len(set(actions)) < len(actions):
                raise ValueError(f"states.{state} {list(actions)} names an action twice; list each once")
        if unknown := [state for state in self.terminal if state not in self.states]:
            raise ValueError(f"terminal names {unknown}, which states does not declare; declare them there")
        if self.unit == self.state:
            raise ValueError(f"unit and state are both {self.unit!r}; they are two features")
        return self


def _kind(value: Any) -> str:
    # An oracle without a kind is the linear one.
    kind = value.get("kind", "linear") if isinstance(value, dict) else getattr(value, "kind", "linear")
    return str(kind)


OracleConfig = Annotated[
    Annotated[LinearOracleConfig, Tag("linear")]
    | Annotated[OnlineLinearConfig, Tag("online_linear")]
    | Annotated[OnlineLogisticConfig, Tag("online_logistic")]
    | Annotated[RecursiveRidgeConfig, Tag("recursive_ridge")]
    | Annotated[TreesConfig, Tag("trees")]
    | Annotated[SklearnConfig, Tag("sklearn")]
    | Annotated[EnsembleConfig, Tag("ensemble")]
    | Annotated[CoverOracleConfig, Tag("cover")]
    | Annotated[InterceptsConfig, Tag("intercepts")]
    | Annotated[UCRL2OracleConfig, Tag("ucrl2")],
    Discriminator(_kind),
]
