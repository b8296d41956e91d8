"""What can be said about retraining, its gate and the model registry: the part of the YAML that training reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from engine.config import Milliseconds, Model
from training.elbo_tds.config import ElboTdsConfig

#: Of ``retraining.cluster``: this machine.
LOCAL = "local"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
#: ``configured``: what ``policy.oracle`` says.
OracleName = Literal["configured", "linear", "lightgbm"]

RewardModelName = Literal["ridge", "configured", "lightgbm"]
#: ``logged``: as they stand in the log, exact. The others estimate them from what was chosen.
PropensityName = Literal["logged", "logistic", "lightgbm"]
CalibrationName = Literal["temperature", "isotonic"]
GateIntervalName = Literal["student", "bootstrap", "empirical_bernstein", "anytime"]


class GateConfig(Model):
    """What a trained policy must show on held-back feedback before it may become champion.

    The interval is that of the difference, new policy minus champion, of the doubly robust estimates.
    """

    interval: GateIntervalName = Field(
        "student", description="of the difference; anytime: the same feedback may be judged again every day"
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


class DampingConfig(Model):
    """What keeps generations from undoing each other's work (docs/generations.md).

    Each measure is off at the value that its description names.
    """

    when: Literal["declared", "always", "never"] = Field(
        "declared", description="after an oscillation was declared, or regardless of the test"
    )
    level: float = Field(
        0.05,
        gt=0.0,
        lt=0.5,
        description="greatest probability that generations are ever declared that do not oscillate",
    )
    generations: int = Field(20, ge=1, description="how many it lasts after an oscillation was declared")
    blend: int = Field(4, ge=1, le=100, description="train on what the newest so many generations logged; 1: off")
    blend_decay: float = Field(
        1.0, gt=0.0, le=1.0, description="weight of a generation's feedback beside that of the next; 1: all alike"
    )
    balance_classes: bool = Field(
        False, description="rewards above and below the middle of the range weigh alike; needs calibration_share"
    )
    weight_cap: float | None = Field(
        None, ge=1.0, allow_inf_nan=False, description="weigh by 1 / (K p), clipped at this; null: off"
    )
    floor: float = Field(0.0, ge=0.0, le=1.0, description="least probability of an action, times K; 0: off")
    calibrated_gamma: bool = Field(
        False, description="gamma is 2 sqrt(K) / (calibration error of the acting generation) at most"
    )
    mixture: float = Field(
        0.5, gt=0.0, le=1.0, description="share of the newest oracle in the average with those before it; 1: off"
    )
    mixture_members: int = Field(6, ge=2, le=50, description="oracles in the average at most")
    max_change: float | None = Field(
        None, gt=0.0, le=1.0, description="greatest change of an expected reward, as a share of the range; null: off"
    )
    dead_band: float = Field(
        0.0, ge=0.0, lt=1.0, description="changes of an expected reward within this share of the range are none; 0: off"
    )

    @property
    def mixes(self) -> bool:
        """Whether oracles are averaged."""
        return self.mixture < 1.0 or self.max_change is not None or self.dead_band > 0.0


class LightGBMConfig(Model):
    """The gradient boosted trees of the batch oracle."""

    trees: int = Field(200, ge=1, le=10_000)
    leaves: int = Field(15, ge=2, le=4_096, description="most leaves of one tree")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    min_child: int = Field(10, ge=1, description="fewest feedbacks in a leaf")


class SearchConfig(Model):
    """Random search for the settings of the boosted trees, by their loss on the newest part of the fitted feedback."""

    trials: int = Field(0, ge=0, le=1_000, description="settings that are tried at most; 0: off")
    budget: Milliseconds = Field(60_000, gt=0, description="time after which no other is tried")
    share: float = Field(0.25, gt=0.0, lt=1.0, description="newest share of the fitted feedback that judges them")
    trees: tuple[int, ...] = Field((50, 100, 200, 400), min_length=1)
    leaves: tuple[int, ...] = Field((4, 8, 15, 31), min_length=1)
    learning_rate: tuple[float, ...] = Field((0.02, 0.05, 0.1, 0.2), min_length=1)
    min_child: tuple[int, ...] = Field((5, 10, 20, 50), min_length=1)


class RollbackConfig(Model):
    """When a promotion is undone because it does not earn what was estimated."""

    enabled: bool = Field(False, description="undo it; otherwise it is told by `leeway generations` alone")
    bound: float = Field(
        0.0, ge=0.0, allow_inf_nan=False, description="by so much below the estimate's interval it may stay"
    )
    error: float = Field(
        0.05, gt=0.0, lt=0.5, description="greatest probability that a promotion is undone which earns what it should"
    )


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
    rollback: RollbackConfig = RollbackConfig()


class RetrainingConfig(ScheduleConfig):
    """When a decision point is retrained, on what, and by which oracles."""

    max_rows: int | None = Field(None, ge=1, description="use the newest of the window alone")
    oracles: tuple[OracleName, ...] = Field(("configured", "lightgbm"), min_length=1)
    seed: int = Field(0, ge=0, description="of every random choice in training")
    calibration_share: float = Field(
        0.0, ge=0.0, lt=1.0, description="newest share of the fitted feedback by which oracles are calibrated; 0: off"
    )
    reward_model: RewardModelName = Field("ridge", description="of the doubly robust estimates, cross-fitted")
    propensities: PropensityName = Field("logged", description="logged, or estimated where the log has none to trust")
    propensity_calibration: CalibrationName = Field("temperature", description="of estimated propensities")
    gate: GateConfig = GateConfig()
    damping: DampingConfig = DampingConfig()
    search: SearchConfig = SearchConfig()
    lightgbm: LightGBMConfig = LightGBMConfig()
    cluster: str = Field(
        LOCAL,
        pattern=r"^(local|(tcp|tls)://\S+)$",
        description="where lightgbm is fitted: local, or the address of a Dask scheduler, such as tcp://10.0.0.5:8786",
    )

    @model_validator(mode="after")
    def _on_a_cluster_as_logged(self) -> RetrainingConfig:
        if self.cluster != LOCAL and self.propensities != "logged":
            raise ValueError(
                f"cluster is {self.cluster}, and propensities are estimated in the memory of one machine; set "
                "propensities to logged, or cluster to local"
            )
        return self

    @model_validator(mode="after")
    def _balanced_is_calibrated(self) -> RetrainingConfig:
        if self.damping.balance_classes and self.damping.when != "never" and not self.calibration_share:
            raise ValueError(
                "damping.balance_classes moves what is expected away from what comes; set calibration_share, such as "
                "0.2, so that it is moved back"
            )
        return self

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
