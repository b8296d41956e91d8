"""What can be said about the monitors of a decision point: the part of the YAML that monitoring reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitoring.weights import AnytimeWeight, ShapedWeight, Weight


class Model(BaseModel):
    """Base of all configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class RewardMonitorConfig(Model):
    """R-BOCPD on the reward stream, and when its alarm calls for retraining."""

    enabled: bool = True
    weight_scale: float = Field(
        2.5e-7, gt=0, lt=1, description="c: false alarms grow about in proportion; 2.5e-7 gives about 1 % within 10 000"
    )
    weight_exponent: float = Field(1.0, ge=0, le=4, description="g: shape of the weight")
    delta: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="proved bound on the chance of any false alarm, ever; replaces c and g, and is slower",
    )
    min_effect: float = Field(
        0.05, ge=0, le=1, description="least unexplained fall that calls for retraining, as a share of the reward range"
    )
    cooldown: int = Field(200, ge=0, description="feedbacks after a call for retraining in which none follows")
    max_candidates: int = Field(4096, ge=8, le=262_144, description="change points considered at a time")

    @model_validator(mode="after")
    def _check(self) -> RewardMonitorConfig:
        shape = self.model_fields_set & {"weight_scale", "weight_exponent"}
        if self.delta is not None and shape:
            raise ValueError(f"delta replaces {' and '.join(sorted(shape))}: give the one or the other")
        return self

    @property
    def weight(self) -> Weight:
        """The weight that these settings describe."""
        if self.delta is not None:
            return AnytimeWeight(self.delta)
        return ShapedWeight(self.weight_scale, self.weight_exponent)


class MonitorsConfig(Model):
    """The monitors of a decision point."""

    reward: RewardMonitorConfig = RewardMonitorConfig()
