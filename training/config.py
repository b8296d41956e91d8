"""What can be said about retraining, its gate and the model registry: the part of the YAML that training reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from engine.config import Milliseconds, Model
from training.elbo_tds.config import ElboTdsConfig

#: ``configured``: what ``policy.oracle`` says.
OracleName = Literal["configured", "linear", "lightgbm"]


class GateConfig(Model):
    """What a trained policy must show on held-back feedback before it may become champion.

    The interval is that of the difference, new policy minus champion, of the doubly robust estimates.
    """

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


class LightGBMConfig(Model):
    """The gradient boosted trees of the batch oracle."""

    trees: int = Field(200, ge=1, le=10_000)
    leaves: int = Field(15, ge=2, le=4_096, description="most leaves of one tree")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    min_child: int = Field(10, ge=1, description="fewest feedbacks in a leaf")


class ScheduleConfig(Model):
    """When something is retrained, and on what."""

    enabled: bool = True
    on_drift: bool = Field(True, description="an alarm that calls for retraining asks for it")
    every: Annotated[Milliseconds, Field(gt=0)] | None = Field(None, description="also on this schedule")
    window: Milliseconds = Field(2_592_000_000, gt=0, description="how far back to go when no change is known")
    min_events: int = Field(1_000, ge=2, description="feedbacks since the change before a policy is trained")
    hold_back: float = Field(0.25, gt=0.0, lt=1.0, description="share of the newest feedback kept for the gate")
    retry_growth: float = Field(
        1.5, gt=1.0, allow_inf_nan=False, description="after a failed attempt, wait for this many times its feedbacks"
    )


class RetrainingConfig(ScheduleConfig):
    """When a decision point is retrained, on what, and by which oracles."""

    max_rows: int | None = Field(None, ge=1, description="use the newest of the window alone")
    oracles: tuple[OracleName, ...] = Field(("configured", "lightgbm"), min_length=1)
    seed: int = Field(0, ge=0, description="of every random choice in training")
    gate: GateConfig = GateConfig()
    lightgbm: LightGBMConfig = LightGBMConfig()

    @field_validator("oracles")
    @classmethod
    def _distinct(cls, oracles: tuple[OracleName, ...]) -> tuple[OracleName, ...]:
        if len(set(oracles)) < len(oracles):
            raise ValueError(f"oracles {list(oracles)} name one twice; list each once")
        return oracles


class RecommenderRetrainingConfig(ScheduleConfig):
    """When a recommender is retrained, how, and what its lists must show before they are served."""

    every: Annotated[Milliseconds, Field(gt=0)] | None = Field(
        86_400_000, description="on this schedule; null: on alarms"
    )
    estimator: Literal["slate_independent", "slate_independent_sn", "slate_cascade"] = Field(
        "slate_independent_sn", description="what the gate judges by: see docs/recommender.md"
    )
    gate: GateConfig = GateConfig()
    elbo_tds: ElboTdsConfig = ElboTdsConfig()
    least_steps: int = Field(
        1_000,
        ge=0,
        description="of the optimiser for each day: few lists are gone through more often than elbo_tds.passes",
    )
    rehearse: int = Field(
        2_000, ge=0, description="a day with fewer lists is learned together with the newest before it, up to so many"
    )
    p_after_drift: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="in place of elbo_tds.augmentation.p in a day pass that an alarm asked for, where it is greater: "
        "the next days may shift further",
    )


class RegistryConfig(Model):
    """The MLflow that keeps runs and model versions."""

    tracking_uri: str | None = Field(None, min_length=1, description="default: a SQLite file below the data directory")
    experiment: str = Field("leeway", min_length=1)
    model_prefix: str = Field(
        "leeway-",
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="the model of a decision point is registered as this and its name",
    )
