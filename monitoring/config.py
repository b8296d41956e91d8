"""What can be said about the monitors of a decision point: the part of the YAML that monitoring reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.budget import Budget
from monitoring.strata import Season
from monitoring.weights import AnytimeWeight, AnyWeight, ShapedWeight

ReactionName = Literal["retrain", "explore", "reset_learner", "discount_learner", "hold_promotion"]
#: The monitors that watch streams of categories, in the order in which they are told.
STREAM_MONITORS = ("action_reward", "residual", "calibration", "actions", "candidates", "features", "defaults", "delay")


class Model(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RewardMonitorConfig(Model):
    """R-BOCPD on the reward stream, and when its alarm calls for retraining."""

    enabled: bool = True
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="share of stationary streams that may raise a false alarm within the horizon"
    )
    false_alarm_horizon: int = Field(10_000, ge=100, description="feedbacks within which that share holds")
    weight_scale: float | None = Field(
        None, gt=0, lt=1, description="c of a weight c (n1 n2 / n)^g in place of the calibrated one"
    )
    weight_exponent: float = Field(1.0, ge=0, le=4, description="g of that weight")
    delta: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="proved bound on the chance of any false alarm, ever, in place of a calibrated level; slower",
    )
    min_effect: float = Field(
        0.05, ge=0, le=1, description="least unexplained fall that calls for retraining, as a share of the reward range"
    )
    cooldown: int = Field(200, ge=0, description="feedbacks after a call for retraining in which none follows")
    max_candidates: int = Field(128, ge=8, le=262_144, description="change points considered at a time")
    reactions: tuple[ReactionName, ...] = Field(
        ("retrain", "explore"), description="of an alarm that calls for retraining"
    )

    @model_validator(mode="after")
    def _check(self) -> RewardMonitorConfig:
        ways = [
            {"delta"} & self.model_fields_set if self.delta is not None else set(),
            self.model_fields_set & {"weight_scale", "weight_exponent"},
            self.model_fields_set & {"false_alarm_rate", "false_alarm_horizon"},
        ]
        if sum(map(bool, ways)) > 1:
            given = " and ".join(sorted(name for way in ways for name in way))
            raise ValueError(f"{given} are different ways to set the false-alarm level: give one")
        if "weight_exponent" in self.model_fields_set and self.weight_scale is None:
            raise ValueError("weight_exponent needs weight_scale")
        return self

    @property
    def own_level(self) -> bool:
        """Whether these settings set the false-alarm level, so that the budget of the decision point does not."""
        own = {"delta", "weight_scale", "weight_exponent", "false_alarm_rate", "false_alarm_horizon"}
        return bool(own & self.model_fields_set)

    @property
    def weight(self) -> AnyWeight | Budget:
        """The weight that these settings describe."""
        if self.delta is not None:
            return AnytimeWeight(self.delta)
        if self.weight_scale is not None:
            return ShapedWeight(self.weight_scale, self.weight_exponent)
        return Budget(self.false_alarm_rate, self.false_alarm_horizon)


class StreamMonitorConfig(Model):
    """R-BOCPD on the streams of one monitor, and what follows from its alarms."""

    enabled: bool = True
    min_effect: float = Field(
        0.05, ge=0, le=1, description="total variation distance between before and after below which nothing is said"
    )
    reactions: tuple[ReactionName, ...] = ()


class FeatureMonitorConfig(StreamMonitorConfig):
    """The context features, each in bins of its own."""

    min_effect: float = Field(0.1, ge=0, le=1, description="as of the other monitors")
    bins: int = Field(10, ge=2, le=50, description="bins of a number, with equally many reference values in each")
    least_share: float = Field(0.01, gt=0, lt=1, description="texts rarer than this in the reference are 'other'")
    most_categories: int = Field(20, ge=1, le=100, description="texts with a category of their own")
    vector_components: int = Field(
        16, ge=1, le=1_000, description="longer vectors are watched as so many random projections"
    )


class AuditConfig(Model):
    """Recomputing logged decisions from their policies."""

    enabled: bool = True
    share: float = Field(0.01, gt=0, le=1, description="of the decisions that is recomputed")
    most_per_second: int = Field(20, ge=1, description="of event time, at most so many are recomputed")
    cooldown: int = Field(
        1_000, ge=0, description="feedbacks after an alarm in which further mismatches are counted only"
    )
    reactions: tuple[ReactionName, ...] = ("hold_promotion",)


class MonitorsConfig(Model):
    """The monitors of a decision point."""

    false_alarms_per_month: float = Field(
        1.0, gt=0, le=1_000_000, description="alarms a month without a change, over all monitors of the decision point"
    )
    feedbacks_per_month: float | None = Field(
        None, gt=0, description="that the budget reckons with; null: at the rate of the reference window"
    )
    warm_up: int = Field(1_000, ge=100, le=20_000, description="feedbacks of the reference window")
    settle: int = Field(
        5_000, ge=0, description="feedbacks of a generation before the reference of what is judged by its scores"
    )
    season: Season = Field("none", description="pattern that is expected: none, hours of the day, hours of the week")
    max_per_second: float = Field(
        1_000.0, gt=0, description="beyond this rate all monitors but the reward look at a sample"
    )
    cooldown: int = Field(
        1_000, ge=0, description="observations of a stream after an alarm with reactions in which none follows"
    )
    frequent_action: float = Field(0.02, gt=0, lt=1, description="share from which an action is watched by itself")
    most_actions: int = Field(20, ge=1, le=200, description="actions watched by themselves")

    reward: RewardMonitorConfig = RewardMonitorConfig()
    action_reward: StreamMonitorConfig = StreamMonitorConfig()
    residual: StreamMonitorConfig = StreamMonitorConfig()
    calibration: StreamMonitorConfig = StreamMonitorConfig()
    actions: StreamMonitorConfig = StreamMonitorConfig()
    candidates: StreamMonitorConfig = StreamMonitorConfig()
    features: FeatureMonitorConfig = FeatureMonitorConfig()
    defaults: StreamMonitorConfig = StreamMonitorConfig()
    delay: StreamMonitorConfig = StreamMonitorConfig(min_effect=0.1)
    propensity: AuditConfig = AuditConfig()

    def of(self, monitor: str) -> StreamMonitorConfig:
        """Return the settings of one of the monitors that have streams."""
        settings: StreamMonitorConfig = getattr(self, monitor)
        return settings

    @property
    def budgeted(self) -> tuple[str, ...]:
        """The enabled monitors that share the false alarms; a mismatch of a propensity is no chance."""
        return tuple(name for name in ("reward", *STREAM_MONITORS) if getattr(self, name).enabled)
