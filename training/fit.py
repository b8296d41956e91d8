"""From a window of feedback to a candidate policy: the oracles that training fits, by name in ``FITTERS``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import lightgbm
import numpy as np

from engine.config import DecisionPoint
from engine.oracles import Events, Learner, LightGBMOracle, LinearLearner, Oracle, learn_events, make_learner
from engine.oracles.recursive_ridge import RecursiveRidgeLearner
from engine.oracles.refitted import RefittedLearner
from engine.policy import Policy
from training.config import LightGBMConfig, OracleName
from training.dataset import Dataset, Float64

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
    train: Dataset, point: DecisionPoint, weights: Float64 | None = None
) -> tuple[LinearLearner, tuple[str, ...]]:
    """Learn the per-action ridge regression of the decision point from scratch, in the order of time.

    Returns the learner itself, so that the online learner goes on from where training stopped, and its vocabulary.
    """
    settings = point.policy.regression
    learner = LinearLearner(
        train.width, ridge=settings.ridge, forgetting=settings.forgetting, max_actions=settings.max_actions
    )
    for begin in range(0, len(train), _CHUNK):
        part = train.rows(slice(begin, begin + _CHUNK))
        mine = None if weights is None else weights[begin : begin + _CHUNK]
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


def fit_configured(train: Dataset, point: DecisionPoint, weights: Float64 | None = None) -> Learner:
    """Learn as ``policy`` says (oracle, learning, memory), from scratch and in the order of time."""
    learner = make_learner(point)
    if isinstance(learner, RecursiveRidgeLearner):
        learner.fit_features(train.chosen_matrix(), train.reward)
    for begin in range(0, len(train), _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        learn_events(learner, events_of(train.rows(chunk), None if weights is None else weights[chunk]))
    if isinstance(learner, RefittedLearner):
        learner.refit()
    return learner


def fit_lightgbm(
    train: Dataset,
    point: DecisionPoint,
    config: LightGBMConfig,
    seed: int,
    weights: Float64 | None = None,
    threads: int = _THREADS,
) -> tuple[LightGBMOracle, tuple[str, ...]]:
    """Fit boosted trees to the reward of the chosen actions; the last feature is the action's code, a category.

    Rewards of 0 and 1 are fitted by log loss, whose predictions are probabilities and so expected rewards;
    any others by squared loss. The same rows, configuration and seed give the same model, byte for byte, on one
    kind of machine.
    """
    vocabulary = tuple(dict.fromkeys(train.chosen_actions()))
    code = {action: i for i, action in enumerate(vocabulary, start=1)}
    codes = np.array([code[action] for action in train.chosen_actions()], dtype=np.float32)
    rows = np.column_stack([train.chosen_matrix(), codes])
    # Predictions must be in units of reward, and the log-loss model gives probabilities of a 1: right as it stands
    # on the range [0, 1] alone.
    binary = point.reward.range == (0.0, 1.0) and bool(np.isin(train.reward, (0.0, 1.0)).all())
    params: dict[str, object] = {
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
        "num_threads": threads,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(
        rows, label=train.reward, weight=weights, categorical_feature=[rows.shape[1] - 1], params=params
    )
    booster = lightgbm.train(params, data, num_boost_round=config.trees)
    return LightGBMOracle(booster.model_to_string()), vocabulary


def _configured(
    train: Dataset, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    learner = fit_configured(train, point, weights)
    return Fitted(learner.oracle(), tuple(learner.vocabulary), len(train), learner)


def _linear(
    train: Dataset, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    learner, vocabulary = fit_linear(train, point, weights)
    return Fitted(learner.oracle(), vocabulary, len(train), learner)


def _lightgbm(
    train: Dataset, point: DecisionPoint, config: LightGBMConfig, seed: int, weights: Float64 | None = None
) -> Fitted:
    oracle, vocabulary = fit_lightgbm(train, point, config, seed, weights)
    return Fitted(oracle, vocabulary, len(train))


class Fitter(Protocol):
    """Fits an oracle to the reward of the chosen actions; the weights of the rows are all alike by default."""

    def __call__(
        self,
        train: Dataset,
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
