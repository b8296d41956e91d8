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

#: The learning rate and the batch of the authors' script, with which little is learned in one pass.
RELEASED: dict[str, Any] = {"learning_rate": 3e-4, "batch_sessions": 32}
AS_RELEASED: dict[str, dict[str, Any]] = {
    "ERM, released rate": {**ERM, **RELEASED},
    "ERM, bottleneck, released rate": {**CONTROL, **RELEASED},
    "ELBO_TDS, released rate": {**CHEAP, **RELEASED},
}


@dataclass(frozen=True)
class Setting:
    """What was chosen for a data set."""

    rates: Mapping[str, float]
    alpha: float


def augmented(**changes: Any) -> dict[str, Any]:
    return {**CHEAP, "augmentation": AugmentationConfig(**changes)}


def ablations(source: SessionSource) -> dict[str, dict[str, Any]]:
    """Return what is changed in ELBO_TDS, one thing at a time."""
    off = {"statistical": "none", "categorical": "none", "sequential": "none"}
    found: dict[str, dict[str, Any]] = {
        "as released: drawn noise, users' copies by row": {},
        "reconstruction only": {**CHEAP, "prior": False},
        "prior only": {**CHEAP, "reconstruction": False},
        "statistical alone": augmented(**{**off, "statistical": "jitter"}),
        "categorical alone": augmented(**{**off, "categorical": "element"}),
        "sequential alone": augmented(**{**off, "sequential": "mask"}),
        "categorical: whole field": augmented(categorical="field"),
        "target clean": {**CHEAP, "target": "clean"},
        "variance learned, with entropy": {**CHEAP, "variance": "learned"},
        "M 2": {**CHEAP, "copies": 2},
        "M 8": {**CHEAP, "copies": 8},
        "p 0.1": augmented(p=0.1),
        "p 0.5": augmented(p=0.5),
        "jitter 8": augmented(jitter=8),
        "alpha 0.001": {**CHEAP, "alpha": 0.001},
        "alpha 0.1": {**CHEAP, "alpha": 0.1},
    }
    shifting = getattr(source, "shifting", None)
    if shifting is not None:
        wide = AugmentationConfig(fields=tuple(shifting), jitter=50, p=0.9)
        found |= {
            "shifting fields alone": augmented(fields=tuple(shifting)),
            "shifting fields, resampled (jitter 50, p 0.9)": {**CHEAP, "augmentation": wide},
            "shifting fields, resampled, prior only": {**CHEAP, "augmentation": wide, "reconstruction": False},
            "copies, labels only, shifting fields resampled": {
                **CONTROL,
                "predict": "copies",
                "augmentation": wide,
            },
        }
    return found


def neural(
    name: str, settings: Mapping[str, Any], setting: Setting, source: SessionSource, space: FieldSpace, seed: int
) -> ElboTds:
    """Return a neural model; the rate of a variation of ELBO_TDS is that of ELBO_TDS."""
    rate = setting.rates[name if name in setting.rates else "ELBO_TDS"]
    chosen = {"alpha": setting.alpha, "learning_rate": rate, "batch_sessions": BATCH, "seed": seed, **settings}
    return ElboTds(ElboTdsConfig(**chosen), source.user, source.item, source.tasks, space=space, name=name)


def classical(space: FieldSpace, seed: int) -> dict[str, Callable[[], DayModel]]:
    """Return the classical models."""
    return {
        "popularity": lambda: Popularity("item_id"),
        "logistic": lambda: LogisticRegression(space, seed=seed),
        "LightGBM": lambda: LightGBM(space, seed=seed, threads=1),
    }
