"""What can be said about retraining, its gate and the model registry: the part of the YAML that training reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.config import Milliseconds, Model

Share = Annotated[float, Field(ge=0.0, le=1.0)]
#: ``configured``: what ``policy.oracle`` says.
OracleName = Literal["configured", "linear", "lightgbm"]

RewardModelName = Literal["ridge", "configured", "lightgbm"]
#: ``logged``: as they stand in the log, exact. The others estimate them from what was chosen.
PropensityName = Literal["logged", "logistic", "lightgbm"]
CalibrationName = Literal["temperature", "isotonic"]
GateIntervalName = Literal["normal", "bootstrap", "empirical_bernstein", "anytime"]


class GateConfig(Model):
    """What a trained policy must show on held-back feedback before it may become champion.

    The interval is that of the difference, new policy minus champion, of the doubly robust estimates.
    """

    interval: GateIntervalName = Field(
        "normal", description="of the difference; anytime: the same feedback may be judged again every day"
    )

    margin: float = Field(
        0.0, allow_inf_nan=False, description="the interval of the difference must lie above this, in units of reward"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="of the one-sided lower bound of the difference")
    min_effective_sample_size: float = Field(
        50.0, ge=1.0, allow_inf_nan=False, description="(sum w)^2 / sum w^2 of the importance weights"
    )
    max_unsupported: float = Field(
        0.01, ge=0.0, le=1.0, description="share of the new policy's probability on actions logged with probability 0"
    )
    min_events: int = Field(200, ge=2, description="held-back feedbacks below which nothing is concluded")
    max_total_variation: float = Field(
        1.0, ge=0.0, le=1.0, description="mean share of decisions that would be others than the logging policies'"
    )
    min_coverage: float = Field(
        0.0, ge=0.0, le=1.0, description="share of what was offered, by kind of context, that was ever tried (SACo)"
    )
    min_trajectory_quality: float = Field(
        0.0, ge=0.0, le=1.0, description="mean reward of the window between the worst and the best policy's (TQ)"
    )
    positives: tuple[Share, Share] = Field(
        (0.0, 1.0), description="bounds of the share of rewards in the window above the middle of the reward's range"
    )
    max_drifts: int | None = Field(
        None, ge=0, description="unexplained changes inside the window beyond which nothing is promoted"
    )
    allow_estimated_propensities: bool = Field(
        False, description="judge also by propensities that were estimated: then no interval holds what it says"
    )

    @field_validator("positives")
    @classmethod
    def _ordered(cls, positives: tuple[float, float]) -> tuple[float, float]:
        if positives[0] > positives[1]:
            raise ValueError(f"positives {list(positives)}: write the lower bound first")
        return positives


class LightGBMConfig(Model):
    """The gradient boosted trees of the batch oracle."""

    trees: int = Field(200, ge=1, le=10_000)
    leaves: int = Field(15, ge=2, le=4_096, description="most leaves of one tree")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    min_child: int = Field(10, ge=1, description="fewest feedbacks in a leaf")


class RetrainingConfig(Model):
    """When a decision point is retrained, on what, and by which oracles."""

    enabled: bool = True
    on_drift: bool = Field(True, description="an alarm that calls for retraining asks for it")
    every: Annotated[Milliseconds, Field(gt=0)] | None = Field(None, description="also on this schedule")
    window: Milliseconds = Field(2_592_000_000, gt=0, description="how far back to go when no change is known")
    max_rows: int | None = Field(None, ge=1, description="use the newest of the window alone")
    min_events: int = Field(1_000, ge=2, description="feedbacks since the change before a policy is trained")
    hold_back: float = Field(0.25, gt=0.0, lt=1.0, description="share of the newest feedback kept for the gate")
    retry_growth: float = Field(
        1.5, gt=1.0, allow_inf_nan=False, description="after a failed attempt, wait for this many times its feedbacks"
    )
    oracles: tuple[OracleName, ...] = Field(("configured", "lightgbm"), min_length=1)
    seed: int = Field(0, ge=0, description="of every random choice in training")
    reward_model: RewardModelName = Field("ridge", description="of the doubly robust estimates, cross-fitted")
    propensities: PropensityName = Field("logged", description="logged, or estimated where the log has none to trust")
    propensity_calibration: CalibrationName = Field("temperature", description="of estimated propensities")
    gate: GateConfig = GateConfig()
    lightgbm: LightGBMConfig = LightGBMConfig()

    @field_validator("oracles")
    @classmethod
    def _distinct(cls, oracles: tuple[OracleName, ...]) -> tuple[OracleName, ...]:
        if len(set(oracles)) < len(oracles):
            raise ValueError(f"oracles {list(oracles)} name one twice; list each once")
        return oracles


class RegistryConfig(Model):
    """The MLflow that keeps runs and model versions."""

    tracking_uri: str | None = Field(None, min_length=1, description="default: a SQLite file below the data directory")
    experiment: str = Field("leeway", min_length=1)
    model_prefix: str = Field(
        "leeway-",
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="the model of a decision point is registered as this and its name",
    )
