"""Random search for the settings of the boosted trees (Bergstra and Bengio, *Random search for hyper-parameter
optimization*, JMLR 13, 2012).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.config import DecisionPoint
from training.config import LightGBMConfig, SearchConfig
from training.fit import fit_lightgbm
from training.stored import Feedbacks

#: Told of every trial: its settings and its loss.
Tell = Callable[[LightGBMConfig, float], None]


def search_lightgbm(
    train: Feedbacks,
    point: DecisionPoint,
    first: LightGBMConfig,
    config: SearchConfig,
    seed: int,
    clock_ms: Callable[[], int],
    tell: Tell = lambda _config, _loss: None,
) -> LightGBMConfig:
    """Return the settings with the least squared error on the newest part of ``train``.

    The configured settings are tried first, so that the search never does worse than they do there. Which others are
    tried, and in which order, the seed decides; how many of them, ``trials``, unless the budget ends before: then the
    result depends on how fast the machine is.

    Parameters
    ----------
    train, point
        The feedback to fit on.
    first
        The configured settings.
    config
        Grid, trials and budget.
    seed
        Of the order of the trials and of the trees.
    clock_ms
        For the budget.
    tell
        Is told of every trial.
    """
    split = len(train) - max(1, int(len(train) * config.share))
    older, newer = train.part(0, split), train.part(split, len(train))
    rng = np.random.default_rng(seed)
    until_ms = clock_ms() + config.budget
    best, least = first, _loss(older, newer, point, first, seed)
    tell(first, least)
    for _ in range(config.trials):
        if clock_ms() >= until_ms:
            break
        tried = LightGBMConfig(
            trees=int(rng.choice(config.trees)),
            leaves=int(rng.choice(config.leaves)),
            learning_rate=float(rng.choice(config.learning_rate)),
            min_child=int(rng.choice(config.min_child)),
        )
        loss = _loss(older, newer, point, tried, seed)
        tell(tried, loss)
        if loss < least:
            best, least = tried, loss
    return best


def _loss(older: Feedbacks, newer: Feedbacks, point: DecisionPoint, config: LightGBMConfig, seed: int) -> float:
    oracle, vocabulary = fit_lightgbm(older, point, config, seed)
    expected = np.concatenate(
        [oracle.predict(b.chosen_matrix(), b.codes(vocabulary)[b.chosen_flat]) for b in newer.blocks()]
    )
    return float(((expected - newer.reward) ** 2).mean())
