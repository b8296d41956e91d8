"""What can be said about the monitors of a decision point: the part of the YAML that monitoring reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.budget import Budget
from monitoring.weights import AnytimeWeight, AnyWeight, ShapedWeight


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
    def weight(self) -> AnyWeight | Budget:
        """The weight that these settings describe."""
        if self.delta is not None:
            return AnytimeWeight(self.delta)
        if self.weight_scale is not None:
            return ShapedWeight(self.weight_scale, self.weight_exponent)
        return Budget(self.false_alarm_rate, self.false_alarm_horizon)


class MonitorsConfig(Model):
    """The monitors of a decision point."""

    reward: RewardMonitorConfig = RewardMonitorConfig()
