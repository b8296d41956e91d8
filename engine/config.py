"""What can be said about a decision point and its server: the part of the YAML that the engine reads.

Every model refuses unknown keys, so that a typing error is an error. Defaults here are the defaults of the
product; ``leeway init`` writes them out with comments.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

NAME = r"^[a-z][a-z0-9_]{0,62}$"
#: Most columns of a decision point: the linear oracle's statistics grow with their square.
MAX_WIDTH = 4_096
FLOAT32_MAX = 3.4028234663852886e38
_DURATION = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_duration(value: object) -> int:
    """Return milliseconds of a duration such as ``500ms``, ``10m``, ``36h`` or ``30d``.

    >>> parse_duration("10m")
    600000
    """
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{value!r} is no duration; write a number with a unit, such as 500ms, 30s, 10m, 36h, 7d or 2w"
        )
    return round(float(match[1]) * _UNIT_MS[match[2]])


#: Context for validating what people write: there a number without a unit is an error, not milliseconds.
WRITTEN = {"written": True}


def _milliseconds(value: object, info: ValidationInfo) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or not info.context):
        return value
    return parse_duration(value)


Milliseconds = Annotated[int, BeforeValidator(_milliseconds)]
Scale = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=NAME)]


class Model(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

    features: dict[Name, Feature] = {}
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


class LinearOracleConfig(Model):
    """Per-action ridge regression, learned online from sufficient statistics."""

    kind: Literal["linear"] = "linear"
    ridge: float = Field(1.0, ge=1e-6, allow_inf_nan=False, description="less is lost in rounding beside many rows")
    forgetting: float = Field(
        1.0, gt=0.5, le=1.0, description="weight of an observation one update of its action later"
    )
    max_actions: int = Field(256, ge=1, description="actions with a regression of their own; others share one")


class SquareCBConfig(Model):
    """Inverse gap weighting with gamma = scale * learned ** exponent."""

    kind: Literal["squarecb"] = "squarecb"
    gamma_scale: float = Field(10.0, ge=0, allow_inf_nan=False)
    gamma_exponent: float = Field(0.5, ge=0, le=1)


class UniformConfig(Model):
    """Every available action with the same probability."""

    kind: Literal["uniform"] = "uniform"


ExplorationConfig = Annotated[SquareCBConfig | UniformConfig, Field(discriminator="kind")]


class PolicyConfig(Model):
    """Oracle and exploration of a decision point, and how often what was learned is published."""

    oracle: LinearOracleConfig = LinearOracleConfig()
    exploration: ExplorationConfig = SquareCBConfig()
    publish_interval: Milliseconds = Field(1_000, ge=50, description="time between published policies")
    drift_exploration: float = Field(
        0.5, ge=0, le=1, description="most uniform exploration that an alarm adds; it adds the share of reward lost"
    )
    drift_exploration_feedbacks: int = Field(5_000, ge=1, description="how long it lasts, if no promotion ends it")
    salt: str = Field("leeway", description="mixed into every draw; a new salt gives other draws for the same ids")


class DecisionPoint(Model):
    """One decision problem: its features, reward and policy."""

    context: dict[Name, Feature] = {}
    actions: ActionsConfig = ActionsConfig()
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
        return self


def _width(feature: Feature) -> int:
    match feature:
        case NumberFeature():
            return 1
        case TextFeature():
            return feature.buckets
        case VectorFeature():
            return feature.size


class ServingConfig(Model):
    """The gRPC server."""

    host: str = "127.0.0.1"
    port: int = Field(8180, ge=0, le=65_535, description="0: any free port")
    workers: int = Field(8, ge=1, le=256, description="threads that answer requests")
    reflection: bool = True
    default_deadline: Milliseconds = Field(2_000, gt=0, description="for callers that set none")
    scoring_reserve: Milliseconds = Field(2, ge=0, description="less than this left: answer from the fallback")
    durability: Literal["memory", "disk", "broker"] = Field(
        "disk", description="what has a record when its call is answered: this process, its disk, or all of Kafka"
    )
    broker_patience: Milliseconds = Field(
        100, ge=1, description="with durability broker: so long for Kafka, then the disk has to do"
    )
    idempotency_cache: int = Field(100_000, ge=0, description="how many recent decisions are known by id")
    max_message_bytes: int = Field(4_194_304, ge=1_024)
    swap_interval: Milliseconds = Field(200, ge=10, description="how often a new policy is looked for")
    drain: Milliseconds = Field(1_000, ge=0, description="time between not-ready and no new requests")
    drain_grace: Milliseconds = Field(10_000, ge=0, description="time for requests under way to end")
