"""The reward model of the doubly robust estimate, cross-fitted.

Chernozhukov et al., *Double/debiased machine learning for treatment and structural parameters*, Econometrics
Journal 2018: every row is predicted by a model that was fitted on the other folds, so that no row's reward stands
in its own prediction, and the residuals are honest.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from engine.config import DecisionPoint, LinearOracleConfig
from engine.oracles import LinearLearner
from training.dataset import Dataset
from training.evaluation.base import Float64, Int64
from training.evaluation.target import chunks

FOLDS = 5


def folds_of(rows: Dataset, folds: int = FOLDS) -> Int64:
    """Return the fold of each row, shape (n,): a hash of its decision id, whatever the other rows are."""
    digests = (blake2b(identity.encode(), digest_size=8).digest() for identity in rows.decision_id)
    return np.fromiter((int.from_bytes(digest, "big") % folds for digest in digests), np.int64, len(rows))


def cross_fit(rows: Dataset, point: DecisionPoint, folds: int = FOLDS) -> Float64:
    """Return the expected reward of every offered action, shape (m,).

    The model is a ridge regression for each action (``engine.oracles.LinearLearner`` with the point's ridge, if
    its oracle is linear too, and without forgetting, since all rows count alike here).

    Parameters
    ----------
    rows
        The rows that are evaluated on; nothing else is learned from.
    point
        The decision point, for the strength of the ridge.
    folds
        How many; a row is predicted by what was learned from the others.
    """
    q_hat = np.empty(int(rows.starts[-1]))
    fold = folds_of(rows, folds)
    oracle = point.policy.oracle
    settings = oracle if isinstance(oracle, LinearOracleConfig) else LinearOracleConfig()
    for k in np.unique(fold):
        learner = LinearLearner(rows.width, ridge=settings.ridge, max_actions=settings.max_actions)
        others = rows.rows(fold != k)
        learner.partial_fit(others.chosen_matrix(), others.chosen_actions(), others.reward)
        model = learner.oracle()
        mine = rows.rows(fold == k)
        predicted = np.empty(int(mine.starts[-1]))
        for flat, part in chunks(mine):
            predicted[flat] = model.predict(part.pairs(), part.codes(learner.vocabulary))
        q_hat[np.repeat(fold == k, np.diff(rows.starts))] = predicted
    return q_hat
