"""From a window of feedback to a candidate policy: the oracles that training fits, by name in ``FITTERS``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np

from engine.config import DecisionPoint
from engine.oracles import Events, Learner, LightGBMOracle, LinearLearner, Oracle, learn_events, make_learner
from engine.oracles.recursive_ridge import RecursiveRidgeLearner
from engine.oracles.refitted import RefittedLearner
from engine.policy import Policy
from training.chosen_rows import ChosenRows
from training.config import LightGBMConfig, OracleName
from training.dataset import Dataset, Float64
from training.stored import Feedbacks, StoredDataset

_CHUNK = 16_384  # rows that the linear learner holds in float64 at once
_THREADS = 2


@dataclass(frozen=True)
class Fitted:
    """What fitting gives.

    Attributes
    ----------
    oracle
        The regressor, which no longer changes.
    vocabulary
        Ids of the actions with codes 1, 2, ... in it.
    rows
        How many feedbacks it was fitted on.
    learner
        The statistics from which online learning can go on; ``None`` for an oracle that is fitted in batch only.
    """

    oracle: Oracle
    vocabulary: tuple[str, ...]
    rows: int
    learner: Learner | None = None


def fit_linear(
    train: Feedbacks, point: DecisionPoint, weights: Float64 | None = None
) -> tuple[LinearLearner, tuple[str, ...]]:
    """Learn the per-action ridge regression of the decision point from scratch, in the order of time.

    Returns the learner itself, so that the online learner goes on from where training stopped, and its vocabulary.
    """
    settings = point.policy.regression
    learner = LinearLearner(
        train.width, ridge=settings.ridge, forgetting=settings.forgetting, max_actions=settings.max_actions
    )
    for number, part in enumerate(train.blocks(_CHUNK)):
        mine = None if weights is None else weights[number * _CHUNK : (number + 1) * _CHUNK]
        learner.partial_fit(part.chosen_matrix(), part.chosen_actions(), part.reward, mine)
    return learner, tuple(learner.vocabulary)


def events_of(rows: Dataset, weights: Float64 | None = None) -> Events:
    """Return feedbacks as decisions to learn from; all weigh 1 where nothing else is said."""
    return Events(
        X=rows.pairs(),
        actions=list(rows.action_ids),
        available=rows.available,
        starts=rows.starts,
        chosen=rows.chosen_flat,
        propensity=rows.propensity,
        rewards=rows.reward,
        weights=np.ones(len(rows)) if weights is None else weights,
    )


def learn(learner: Learner, rows: Feedbacks, weights: Float64 | None = None) -> None:
    """Let a learner go on with feedback, in its order and a part of it at a time."""
    for number, part in enumerate(rows.blocks(_CHUNK)):
        mine = None if weights is None else weights[number * _CHUNK : (number + 1) * _CHUNK]
        learn_events(learner, events_of(part, mine))


def fit_configured(train: Feedbacks, point: DecisionPoint, weights: Float64 | None = None) -> Learner:
    """Learn as ``policy`` says (oracle, learning, memory), from scratch and in the order of time."""
    learner = make_learner(point)
    if isinstance(learner, RecursiveRidgeLearner):
        learner.fit_features(train.chosen_matrix(), train.reward)
    learn(learner, train, weights)
    if isinstance(learner, RefittedLearner):
        learner.refit()
    return learner


def fit_lightgbm(
    train: Feedbacks,
    point: DecisionPoint,
    config: LightGBMConfig,
    seed: int,
    weights: Float64 | None = None,
    threads: int = _THREADS,
) -> tuple[LightGBMOracle, tuple[str, ...]]:
    """Fit boosted trees to the reward of the chosen actions; the last feature is the action's code, a category.

    Rewards of 0 and 1 are fitted by log loss, whose predictions are probabilities and so expected rewards;
    any others by squared loss. Rows on disk are read in blocks, and never all in memory (see ``ChosenRows``). The same
    rows, configuration and seed give the same model, byte for byte, on one kind of machine.
    """
    vocabulary, codes = train.chosen_codes()
    rows: Any
    if isinstance(train, StoredDataset):
        rows = ChosenRows(train, codes)
    else:
        rows = np.column_stack([train.chosen_matrix(), codes])
    reward = train.reward
    params = tree_parameters(reward, point, config, seed) | {"num_threads": threads}
    data = lightgbm.Dataset(rows, label=reward, weight=weights, categorical_feature=[train.width], params=params)
    booster = lightgbm.train(params, data, num_boost_round=config.trees)
    return LightGBMOracle(booster.model_to_string()), vocabulary


def tree_parameters(reward: Float64, point: DecisionPoint, config: LightGBMConfig, seed: int) -> dict[str, object]:
    """Return what LightGBM is told, but for the number of trees and of threads."""
    # Predictions must be in units of reward, and the log-loss model gives probabilities of a 1: right as it stands
    # on the range [0, 1] alone.
    binary = point.reward.range == (0.0, 1.0) and bool(np.isin(reward, (0.0, 1.0)).all())
    return {
        "objective": "binary" if binary else "regression",
        "num_leaves": config.leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_child,
        # LightGBM asks for 100 rows before it looks at a category, and shrinks what it learns of one: rarely drawn
        # actions would all look alike. The action is what scores are to tell apart.
        "min_data_per_group": config.min_child,
        "cat_l2": 1.0,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _configured(
    train: Feedbacks, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    learner = fit_configured(train, point, weights)
    return Fitted(learner.oracle(), tuple(learner.vocabulary), len(train), learner)


def _linear(
    train: Feedbacks, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    learner, vocabulary = fit_linear(train, point, weights)
    return Fitted(learner.oracle(), vocabulary, len(train), learner)


def _lightgbm(
    train: Feedbacks, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    oracle, vocabulary = fit_lightgbm(train, point, config, seed, weights)
    return Fitted(oracle, vocabulary, len(train))


class Fitter(Protocol):
    """Fits an oracle to the reward of the chosen actions; the weights of the rows are all alike by default."""

    def __call__(
        self,
        train: Feedbacks,
        point: DecisionPoint,
        config: LightGBMConfig,
        seed: int,
        weights: Float64 | None = None,
        /,
    ) -> Fitted:
        """Return what was fitted."""


#: By the name that ``retraining.oracles`` gives.
FITTERS: dict[OracleName, Fitter] = {
    "configured": _configured,
    "linear": _linear,
    "lightgbm": _lightgbm,
}


def candidate(name: str, point: DecisionPoint, fitted: Fitted, *, generation: int, created_ms: int) -> Policy:
    """Return the policy that would serve a fitted oracle.

    Parameters
    ----------
    name, point
        The decision point.
    fitted
        What it would serve; its number of rows sets the exploration's schedule.
    generation
        One more than that of the champion.
    created_ms
        Now.
    """
    return Policy(name, point, fitted.vocabulary, fitted.oracle, generation, 0, fitted.rows, created_ms)
