"""ELBO_TDS as the trainer of a retraining: see ``training.elbo_tds``."""

from __future__ import annotations

from collections.abc import Callable

from training.config import RecommenderRetrainingConfig
from training.day_trainer import DayScore, State, Trained
from training.sessions import SessionSource


def elbo_tds_pass(
    source: SessionSource,
    config: RecommenderRetrainingConfig,
    *,
    p: float,
    state: State | None,
    on_day: Callable[[DayScore], None],
) -> Trained:
    """Score and learn the days of a source one after the other; see ``training.day_trainer.DayTrainer``."""
    raise NotImplementedError
