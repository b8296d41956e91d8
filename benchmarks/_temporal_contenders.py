"""What `benchmarks.temporal` compares: one backbone under different objectives, and classical models.

All neural models share sizes, optimiser, batches and seeds. Their rates were chosen for each alike by
``benchmarks._temporal_tuning`` on seeds that are not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.recommender.space import FieldSpace
from training.baselines import LightGBM, LogisticRegression, Popularity
from training.elbo_tds.config import AugmentationConfig, ElboTdsConfig, PenaltyConfig
from training.elbo_tds.model import ElboTds
from training.sessions import DayModel, SessionSource

#: The copies' terms by their exact expectation, and users' copies once a session: the same expected loss as the
#: released form, at a third of its cost. The ablation has the released form beside it.
CHEAP: dict[str, Any] = {"noise": "expected", "user_draws": "session"}
BATCH = 8

ERM: dict[str, Any] = {"bottleneck": False, "alpha": 0.0}
CONTROL: dict[str, Any] = {"alpha": 0.0}

#: The settings in which the neural models differ, by name.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ERM": ERM,
    "ERM, bottleneck": CONTROL,
    "copies, labels only": {**CONTROL, "predict": "copies"},
    "IRM": {**ERM, "penalty": PenaltyConfig(kind="irm", weight=1.0)},
    "V-REx": {**ERM, "penalty": PenaltyConfig(kind="vrex", weight=1.0)},
    "ELBO_TDS": CHEAP,
}

#: What the authors' script has: with its learning rate and batch little is learned in one pass.
RELEASED: dict[str, Any] = {
    "learning_rate": 3e-4,
    "batch_sessions": 32,
    "latent": 256,
    "augmentation": AugmentationConfig(),
}
AS_RELEASED: dict[str, dict[str, Any]] = {
    "ERM, as released": {**RELEASED, **ERM},
    "ERM, bottleneck, as released": {**RELEASED, **CONTROL},
    "ELBO_TDS, as released": {**RELEASED, **CHEAP, "alpha": 0.01},
}


@dataclass(frozen=True)
class Setting:
    """What was chosen for a data set: a rate for each model, and what they have in common.

    Parameters
    ----------
    rates
        Learning rate by model.
    alpha, augmentation
        Of ELBO_TDS; the labels on copies see the same copies.
    latent, embedding_deviation
        Of all models; the latent of those with a bottleneck.
    """

    rates: Mapping[str, float]
    alpha: float
    latent: int
    embedding_deviation: float
    augmentation: AugmentationConfig

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "rates": dict(self.rates), "augmentation": self.augmentation.model_dump(mode="json")}


def ablations(setting: Setting) -> dict[str, dict[str, Any]]:
    """Return what is changed in ELBO_TDS, one thing at a time."""
    chosen = setting.augmentation

    def augmented(law: AugmentationConfig = chosen, **changes: Any) -> dict[str, Any]:
        return {**CHEAP, "augmentation": law.model_copy(update=changes)}

    released = AugmentationConfig()
    return {
        "drawn noise, users' copies by row": {},
        "reconstruction only": {**CHEAP, "prior": False},
        "prior only": {**CHEAP, "reconstruction": False},
        "statistical alone": augmented(sequential="none"),
        "sequential alone": augmented(statistical="none"),
        "stable fields too": augmented(fields=None),
        "augmentation as released (all fields, jitter 2, p 0.2)": augmented(released),
        "as released, statistical alone": augmented(released, categorical="none", sequential="none"),
        "as released, categorical alone": augmented(released, statistical="none", sequential="none"),
        "as released, sequential alone": augmented(released, statistical="none", categorical="none"),
        "as released, categorical: whole field": augmented(released, categorical="field"),
        "target clean": {**CHEAP, "target": "clean"},
        "variance learned, with entropy": {**CHEAP, "variance": "learned"},
        "M 2": {**CHEAP, "copies": 2},
        "M 8": {**CHEAP, "copies": 8},
        "p 0.2": augmented(p=0.2),
        "p 0.5": augmented(p=0.5),
        "jitter 2": augmented(jitter=2),
        "jitter 8": augmented(jitter=8),
        "alpha 0.01": {**CHEAP, "alpha": 0.01},
        "alpha 0.03": {**CHEAP, "alpha": 0.03},
        "alpha 0.3": {**CHEAP, "alpha": 0.3},
        "latent 256": {**CHEAP, "latent": 256},
    }


def neural(
    name: str, settings: Mapping[str, Any], setting: Setting, source: SessionSource, space: FieldSpace, seed: int
) -> ElboTds:
    """Return a neural model; the rate of a variation of ELBO_TDS is that of ELBO_TDS."""
    chosen = {
        "alpha": setting.alpha,
        "learning_rate": setting.rates[name if name in setting.rates else "ELBO_TDS"],
        "batch_sessions": BATCH,
        "latent": setting.latent,
        "embedding_deviation": setting.embedding_deviation,
        "augmentation": setting.augmentation,
        "seed": seed,
        **settings,
    }
    return ElboTds(ElboTdsConfig(**chosen), source.user, source.item, source.tasks, space=space, name=name)


def classical(space: FieldSpace, seed: int) -> dict[str, Callable[[], DayModel]]:
    """Return the classical models."""
    return {
        "popularity": lambda: Popularity("item_id"),
        "logistic": lambda: LogisticRegression(space, seed=seed),
        "LightGBM": lambda: LightGBM(space, seed=seed, threads=1),
    }
