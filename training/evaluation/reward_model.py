"""The reward model of the doubly robust estimate, cross-fitted.

Chernozhukov et al., *Double/debiased machine learning for treatment and structural parameters*, Econometrics
Journal 2018: every row is predicted by a model that was fitted on the other folds, so that no row's reward stands
in its own prediction, and the residuals are honest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

from engine.config import DecisionPoint
from engine.oracles import LinearLearner, Oracle
from training.config import LightGBMConfig, OracleName, RewardModelName
from training.dataset import Dataset
from training.evaluation.base import Float64, Int64
from training.evaluation.target import chunks
from training.fit import FITTERS

FOLDS = 5
_TREES = LightGBMConfig()
#: From rows to what predicts others, with the ids of the actions that it knows.
RewardModel = Callable[[Dataset, DecisionPoint, LightGBMConfig, int], tuple[Oracle, Sequence[str]]]


def folds_of(rows: Dataset, folds: int = FOLDS) -> Int64:
    """Return the fold of each row, shape (n,): a hash of its decision id, whatever the other rows are."""
    digests = (blake2b(identity.encode(), digest_size=8).digest() for identity in rows.decision_id)
    return np.fromiter((int.from_bytes(digest, "big") % folds for digest in digests), np.int64, len(rows))


def _ridge(train: Dataset, point: DecisionPoint, config: LightGBMConfig, seed: int) -> tuple[Oracle, Sequence[str]]:
    settings = point.policy.regression
    learner = LinearLearner(train.width, ridge=settings.ridge, max_actions=settings.max_actions)
    learner.partial_fit(train.chosen_matrix(), train.chosen_actions(), train.reward)
    return learner.oracle(), learner.vocabulary


def _by(fitter: OracleName) -> RewardModel:
    """Return the reward model that an oracle of training is."""

    def fit(train: Dataset, point: DecisionPoint, config: LightGBMConfig, seed: int) -> tuple[Oracle, Sequence[str]]:
        fitted = FITTERS[fitter](train, point, config, seed)
        return fitted.oracle, fitted.vocabulary

    return fit


#: By the name that ``retraining.reward_model`` gives. ``ridge`` is a ridge regression for each action
#: (``engine.oracles.LinearLearner`` with the point's ridge, if its oracle is linear too) without forgetting, since all
#: rows count alike here; ``configured`` whatever oracle the point has, as it learns; ``lightgbm`` boosted trees.
REWARD_MODELS: dict[RewardModelName, RewardModel] = {
    "ridge": _ridge,
    "configured": _by("configured"),
    "lightgbm": _by("lightgbm"),
}


def cross_fit(
    rows: Dataset,
    point: DecisionPoint,
    folds: int = FOLDS,
    *,
    model: RewardModelName = "ridge",
    lightgbm: LightGBMConfig = _TREES,
    seed: int = 0,
) -> Float64:
    """Return the expected reward of every offered action, shape (m,).

    Parameters
    ----------
    rows
        The rows that are evaluated on; nothing else is learned from.
    point
        The decision point.
    folds
        How many; a row is predicted by what was learned from the others.
    model
        Which of ``REWARD_MODELS``.
    lightgbm, seed
        Of ``lightgbm``.
    """
    q_hat = np.empty(int(rows.starts[-1]))
    fold = folds_of(rows, folds)
    for k in np.unique(fold):
        oracle, vocabulary = REWARD_MODELS[model](rows.rows(fold != k), point, lightgbm, seed)
        mine = rows.rows(fold == k)
        predicted = np.empty(int(mine.starts[-1]))
        for flat, part in chunks(mine):
            predicted[flat] = oracle.predict(part.pairs(), part.codes(vocabulary))
        q_hat[np.repeat(fold == k, np.diff(rows.starts))] = predicted
    return q_hat
