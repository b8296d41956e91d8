"""ELBO_TDS as the trainer of a retraining: see ``training.elbo_tds``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.config import RecommenderRetrainingConfig
from training.day_trainer import DayScore, State, Trained
from training.elbo_tds.model import ElboTds
from training.sessions import Sessions, SessionSource
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
    earlier: SessionSource | None = None,
) -> Trained:
    """Score and learn the days of a source one after the other; see ``training.day_trainer.DayTrainer``.

    A day may come in two trainings, its beginning in the one and its rest, which was held back, in the next. What a
    label is more than half of counts as a positive of the AUC.

    One pass over a day is enough where a day has many lists. Few lists are few steps, which leave a model as it began;
    and many passes over a small day alone overwrite what the days before have taught. So a day gets ``least_steps``
    steps, in as many passes as that takes, and a day of fewer than ``rehearse`` lists is learned with those before it.
    """
    settings = config.elbo_tds
    settings = settings.model_copy(update={"augmentation": settings.augmentation.model_copy(update={"p": p})})
    model = ElboTds(settings, source.user, source.item, source.tasks)
    if state is not None:
        model.restore(state)
    at_once = settings.batch_sessions * _CHUNKS
    days: list[DayScore] = []
    before = [] if earlier is None or state is None else [(earlier, day) for day in earlier.days()]
    for day in source.days():
        labels, scores = [], []
        lists = 0
        for chunk in source.read(day, at_once):
            labels.append(chunk.labels)
            scores.append(model.score(chunk))
            lists += len(np.unique(chunk.session))
        known, predicted = np.concatenate(labels).round(), np.concatenate(scores)
        aucs = {task: auc(known[:, place], predicted[:, place]) for place, task in enumerate(source.tasks)}
        model.extend(source.read(day, at_once))
        beside = _rehearsed(before, config.rehearse - lists, settings.batch_sessions)
        passes, begun = 0, model.steps
        while passes < settings.passes or model.steps - begun < config.least_steps:
            for chunk in beside:
                model.train(chunk)
            for chunk in source.read(day, at_once):
                model.train(chunk)
            passes += 1
        before.append((source, day))
        days.append(DayScore(day, len(known), aucs))
        on_day(days[-1])
    return Trained(model.space, model.two_tower(), model.arrays(), tuple(days))


def _rehearsed(before: Sequence[tuple[SessionSource, int]], room: int, at_once: int) -> list[Sessions]:
    """Return lists of earlier days, oldest first: of the newest days, and of the oldest among them its end.

    Whole batches are taken as long as there is room, so there may be up to ``at_once`` - 1 lists more.
    """
    found: list[Sessions] = []
    for source, day in reversed(before):
        if room <= 0:
            break
        for chunk in reversed(list(source.read(day, at_once))):
            if room <= 0:
                break
            found.append(chunk)
            room -= len(np.unique(chunk.session))
    return found[::-1]
