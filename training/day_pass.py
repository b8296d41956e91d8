"""ELBO_TDS as the trainer of a retraining: see ``training.elbo_tds``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.config import RecommenderRetrainingConfig
from training.day_trainer import DayScore, State, Trained
from training.elbo_tds.model import ElboTds
from training.sessions import SessionSource
from training.sessions.metrics import auc

#: Batches of lists that are read at once, which bounds the memory.
_CHUNKS = 32


def elbo_tds_pass(
    source: SessionSource,
    config: RecommenderRetrainingConfig,
    *,
    p: float,
    state: State | None,
    on_day: Callable[[DayScore], None],
) -> Trained:
    """Score and learn the days of a source one after the other; see ``training.day_trainer.DayTrainer``.

    A day may come in two trainings, its beginning in the one and its rest, which was held back, in the next. What a
    label is more than half of counts as a positive of the AUC.
    """
    settings = config.elbo_tds
    settings = settings.model_copy(update={"augmentation": settings.augmentation.model_copy(update={"p": p})})
    model = ElboTds(settings, source.user, source.item, source.tasks)
    if state is not None:
        model.restore(state)
    at_once = settings.batch_sessions * _CHUNKS
    days = []
    for day in source.days():
        labels, scores = [], []
        for chunk in source.read(day, at_once):
            labels.append(chunk.labels)
            scores.append(model.score(chunk))
        known, predicted = np.concatenate(labels).round(), np.concatenate(scores)
        aucs = {task: auc(known[:, place], predicted[:, place]) for place, task in enumerate(source.tasks)}
        model.extend(source.read(day, at_once))
        for _ in range(settings.passes):
            for chunk in source.read(day, at_once):
                model.train(chunk)
        days.append(DayScore(day, len(known), aucs))
        on_day(days[-1])
    return Trained(model.space, model.two_tower(), model.arrays(), tuple(days))
