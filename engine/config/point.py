"""What can be said about a decision point: its features, reward and policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.base import Milliseconds, Model, Name, Scale
from engine.config.exploration import ExplorationConfig, SquareCBConfig
from engine.config.oracle import LinearOracleConfig, OracleConfig, SklearnConfig, UCRL2OracleConfig
from engine.hashing import text_bucket

#: Most columns of a decision point: the linear oracle's statistics grow with their square.
MAX_WIDTH = 4_096


class NumberFeature(Model):
    """One number; what the oracle sees is ``value * scale``. A missing one counts as 0."""

    type: Literal["number"]
    scale: Scale = 1.0


class TextFeature(Model):
    """A category; what the oracle sees is one of ``buckets`` indicator columns, chosen by hash."""

    type: Literal["text"]
    buckets: int = Field(32, ge=2, le=65_536)


class VectorFeature(Model):
    """A list of ``size`` numbers, each multiplied by ``scale``."""

    type: Literal["vector"]
    size: int = Field(ge=1, le=65_536)
    scale: Scale = 1.0


Feature = Annotated[NumberFeature | TextFeature | VectorFeature, Field(discriminator="type")]


class ActionsConfig(Model):
    """What is known of each candidate, and how many a request may carry."""

    features: dict[Name, Feature] = Field({})
    max: int = Field(1_000, ge=1, le=100_000, description="most actions in one request")


class RewardConfig(Model):
    """How outcomes become the reward of a decision."""

    window: Milliseconds = Field(600_000, gt=0, description="how long after the decision an outcome counts")
    grace: Milliseconds = Field(2_000, ge=0, description="how much later than the window an outcome may arrive")
    aggregation: Literal["first", "last", "sum", "min", "max", "mean"] = "last"
    default: float = Field(0.0, allow_inf_nan=False, description="reward of a decision without an outcome")
    range: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _check(self) -> RewardConfig:
        low, high = self.range
        if not (float("-inf") < low < high < float("inf")):
            raise ValueError(f"range {list(self.range)} must be two finite numbers in ascending order")
        if not 1e-9 <= high - low <= 1e12:
            raise ValueError(f"range {list(self.range)} must be 1e-9 to 1e12 wide; choose another unit of reward")
        if not low <= self.default <= high:
            raise ValueError(f"default {self.default} lies outside range {list(self.range)}")
        return self


class PolicyConfig(Model):
    """Oracle and exploration of a decision point, and how often what was learned is published."""

    oracle: OracleConfig = LinearOracleConfig()
    learning: Literal["plain", "ips", "mtr", "dr"] = Field(
        "plain", description="what feedback teaches: the rewards as they are, or estimates by logged propensities"
    )
    propensity_floor: float = Field(0.01, gt=0, le=1, description="ips, mtr, dr: propensities below count as this")
    memory: int | None = Field(None, ge=10, description="learn from this many latest feedbacks alone; null: from all")
    exploration: ExplorationConfig = SquareCBConfig()
    publish_interval: Milliseconds = Field(1_000, ge=50, description="time between published policies")
    drift_exploration: float = Field(
        0.5, ge=0, le=1, description="most uniform exploration that an alarm adds; it adds the share of reward lost"
    )
    drift_exploration_feedbacks: int = Field(5_000, ge=1, description="how long it lasts, if no promotion ends it")
    salt: str = Field("leeway", description="mixed into every draw; a new salt gives other draws for the same ids")

    @property
    def regression(self) -> LinearOracleConfig:
        """Settings of a linear regression of rewards: the oracle's own, or the defaults where the oracle is another."""
        return self.oracle if isinstance(self.oracle, LinearOracleConfig) else LinearOracleConfig()

    @model_validator(mode="after")
    def _fits(self) -> PolicyConfig:
        kind = self.oracle.kind
        if kind == "cover" and (self.learning != "plain" or self.memory is not None):
            raise ValueError("oracle.kind cover learns from propensities as it is; leave out learning and memory")
        if self.learning in ("ips", "dr") and self.memory is not None:
            raise ValueError(
                f"learning {self.learning} makes a row of every action, and memory counts rows; choose plain or mtr"
            )
        refitted = kind == "trees" or (isinstance(self.oracle, SklearnConfig) and not self.oracle.online)
        if refitted and self.memory is not None:
            raise ValueError(f"oracle.kind {kind} has a memory of its own; set oracle.memory, and leave out memory")
        needs = self.exploration.needs
        if not needs <= self.oracle.gives:
            raise ValueError(
                f"exploration {self.exploration.kind!r} needs {', '.join(sorted(needs))} of the oracle, which "
                f"{self.oracle.kind!r} does not give as it is configured; choose another oracle or exploration"
            )
        return self


class DecisionPoint(Model):
    """One decision problem: its features, reward and policy."""

    context: dict[Name, Feature] = Field({})
    actions: ActionsConfig = ActionsConfig()
    mode: Literal["online", "logging_only", "apprentice"] = Field(
        "online",
        exclude=True,  # how it is run, and no part of what a policy is
        description="who acts: online: the policy; logging_only: the caller's own choice, and nothing is learned; "
        "apprentice: the same, and the policy learns to match it",
    )
    unknown_features: Literal["reject", "ignore"] = "reject"
    reward: RewardConfig = RewardConfig()
    policy: PolicyConfig = PolicyConfig()

    @model_validator(mode="after")
    def _check(self) -> DecisionPoint:
        features = [*self.context.values(), *self.actions.features.values()]
        width = sum(_width(feature) for feature in features)
        if width > MAX_WIDTH:
            raise ValueError(
                f"the features take {width} columns, more than {MAX_WIDTH}: the statistics of one action alone would "
                f"take {8 * (width + 1) ** 2 / 2**30:.1f} GiB; use fewer buckets or shorter vectors"
            )
        exploration = self.policy.exploration
        if "rows" in exploration.needs and not self.actions.features:
            raise ValueError(
                f"exploration {exploration.kind!r} needs to see where actions lie, and actions.features is empty; "
                f"declare features of the actions, such as an embedding, or choose another exploration"
            )
        if isinstance(self.policy.oracle, UCRL2OracleConfig):
            self._check_states(self.policy.oracle)
        whole = self.policy.learning != "plain" or self.policy.oracle.kind in ("cover", "ucrl2")
        if self.mode == "apprentice" and whole:
            raise ValueError(
                "mode apprentice fits a regression of what the caller chooses, row by row; choose policy.learning "
                "plain, and a policy.oracle other than cover and ucrl2"
            )
        return self

    def _check_states(self, oracle: UCRL2OracleConfig) -> None:
        for name in (oracle.state, oracle.unit):
            if not isinstance(self.context.get(name), TextFeature):
                raise ValueError(f"policy.oracle needs the context feature {name!r} of type text; declare it")
        feature = self.context[oracle.state]
        assert isinstance(feature, TextFeature)
        taken: dict[int, str] = {}
        for state in oracle.states:
            other = taken.setdefault(text_bucket(oracle.state, state, feature.buckets), state)
            if other != state:
                raise ValueError(
                    f"states {other!r} and {state!r} fall into one of the {feature.buckets} buckets of "
                    f"context.{oracle.state}; give it more, such as buckets: {2 * feature.buckets}"
                )
        if self.policy.exploration.kind != "epsilon_greedy":
            raise ValueError(
                f"policy.exploration is {self.policy.exploration.kind}, and an oracle of kind ucrl2 plans what to "
                "explore; set policy.exploration to {kind: epsilon_greedy, epsilon: 0}, or to a small epsilon for logs "
                "on which other policies can be evaluated"
            )


def _width(feature: Feature) -> int:
    match feature:
        case NumberFeature():
            return 1
        case TextFeature():
            return feature.buckets
        case VectorFeature():
            return feature.size
