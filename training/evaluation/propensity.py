"""Propensities of logs that have none to trust: estimated from what was chosen, cross-fitted and calibrated.

An estimated propensity is a guess, and an error in it is one in every weight that no interval knows of. What is
computed from such rows is flagged (``LoggedRows.estimated``), and the gate refuses it unless it is allowed to.

Calibration: Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017 (temperature);
Zadrozny and Elkan, *Transforming Classifier Scores into Accurate Multiclass Probability Estimates*, KDD 2002
(isotonic).
"""

from __future__ import annotations

from collections.abc import Callable

import lightgbm
import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from training.config import CalibrationName, LightGBMConfig, PropensityName
from training.dataset import Dataset
from training.evaluation.base import Float64, Int64
from training.evaluation.reward_model import FOLDS, folds_of

#: Share of a uniform draw that is mixed in: an action that the model rules out was drawn all the same, and its weight
#: must stay finite.
UNIFORM = 0.01
_TREES = LightGBMConfig(trees=100, leaves=7, min_child=20)
_TINY = 1e-12

#: From contexts to the log-probability of each class, shape (n, classes).
_Model = Callable[[Float64], Float64]


def estimate_propensities(
    rows: Dataset,
    model: PropensityName = "logistic",
    calibration: CalibrationName = "temperature",
    *,
    folds: int = FOLDS,
    trees: LightGBMConfig = _TREES,
    seed: int = 0,
) -> Float64:
    """Return an estimate of the whole logged vectors, shape (m,): positive for every action that was available.

    The model gives each action id its probability by the context alone. Of a row only the available actions count,
    and their probabilities are made to sum to 1. A row is estimated by a model and a calibration that have seen
    neither it nor its fold (a hash of its decision id); the calibration has a fold of its own.

    Parameters
    ----------
    rows
        The rows; their logged probabilities are not looked at.
    model
        ``logistic``: multinomial regression. ``lightgbm``: boosted trees, which need far more rows.
    calibration
        ``temperature``: one number that sharpens or flattens all vectors. ``isotonic``: any rising map, of all
        probabilities together.
    folds
        At least 3.
    trees, seed
        Of ``lightgbm``.

    Raises
    ------
    ValueError
        Nothing is to be estimated, or there are too few folds or rows for a model beside its calibration.
    """
    if model == "logged":
        raise ValueError("propensities that are logged are not estimated; choose logistic or lightgbm")
    if folds < 3:
        raise ValueError(f"folds must be at least 3 (one to predict, one to calibrate, one to fit), got {folds}")
    fold = folds_of(rows, folds)
    present = np.unique(fold)
    if len(present) < 3:
        raise ValueError(f"{len(rows)} feedbacks are too few to estimate propensities from; widen the window")
    p = np.empty(int(rows.starts[-1]))
    for place, k in enumerate(present):
        aside = present[(place + 1) % len(present)]
        train, check, mine = (rows.rows(mask) for mask in ((fold != k) & (fold != aside), fold == aside, fold == k))
        vocabulary, fitted = _fit(train, model, trees, seed)
        scores = {name: _scores(part, vocabulary, fitted) for name, part in (("check", check), ("mine", mine))}
        calibrate = _CALIBRATIONS[calibration](check, scores["check"])
        p[np.repeat(fold == k, np.diff(rows.starts))] = calibrate(mine, scores["mine"])
    return p


def _fit(train: Dataset, model: PropensityName, config: LightGBMConfig, seed: int) -> tuple[list[str], _Model]:
    vocabulary, code = np.unique(np.asarray(train.chosen_actions(), dtype=str), return_inverse=True)
    names = [str(name) for name in vocabulary]
    X = _features(train)
    if len(names) == 1:
        return names, lambda contexts: np.zeros((len(contexts), 1))
    if model == "logistic":
        regression = LogisticRegression(max_iter=1_000).fit(X, code)
        return names, lambda contexts: np.asarray(regression.predict_log_proba(contexts))
    params: dict[str, object] = {
        "objective": "multiclass",
        "num_class": len(names),
        "num_leaves": config.leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.min_child,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(params, lightgbm.Dataset(X, label=code, params=params), num_boost_round=config.trees)
    return names, lambda contexts: np.log(np.maximum(booster.predict(contexts), _TINY))


def _features(rows: Dataset) -> Float64:
    """Return the contexts with a constant: a decision point may have no context at all."""
    return np.column_stack([rows.context.astype(np.float64), np.ones(len(rows))])


def _scores(rows: Dataset, vocabulary: list[str], model: _Model) -> Float64:
    """Return the log-probability of every offered action, shape (m,); that of the least for one never chosen."""
    by_class = model(_features(rows))
    table = np.column_stack([by_class.min(axis=1) - 1.0, by_class])
    scores = table[_row_of(rows), rows.codes(vocabulary)]
    return np.where(rows.available, scores, -np.inf)


def _row_of(rows: Dataset) -> Int64:
    return np.repeat(np.arange(len(rows)), np.diff(rows.starts))


def _normalized(rows: Dataset, weights: Float64) -> Float64:
    """Return positive weights of the available actions as vectors with sum 1 and the uniform share."""
    available = rows.available.astype(np.float64)
    counts = np.add.reduceat(available, rows.starts[:-1])
    sums = np.add.reduceat(weights, rows.starts[:-1])
    row = _row_of(rows)
    uniform = available / counts[row]
    vectors = np.divide(weights, sums[row], out=uniform.copy(), where=sums[row] > 0.0)
    return np.asarray((1.0 - UNIFORM) * vectors + UNIFORM * uniform)


def _softmax(rows: Dataset, scores: Float64, temperature: float) -> Float64:
    best = np.maximum.reduceat(scores, rows.starts[:-1])[_row_of(rows)]
    return _normalized(rows, np.exp((scores - best) / temperature))


_Calibrated = Callable[[Dataset, Float64], Float64]


def _temperature(check: Dataset, scores: Float64) -> _Calibrated:
    def loss(log_temperature: float) -> float:
        return -float(np.log(_softmax(check, scores, float(np.exp(log_temperature)))[check.chosen_flat]).mean())

    best = float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
    return lambda rows, found: _softmax(rows, found, best)


def _isotonic(check: Dataset, scores: Float64) -> _Calibrated:
    drawn = np.zeros(len(scores))
    drawn[check.chosen_flat] = 1.0
    offered = check.available
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    regression.fit(_softmax(check, scores, 1.0)[offered], drawn[offered])

    def calibrate(rows: Dataset, found: Float64) -> Float64:
        risen = np.asarray(regression.predict(_softmax(rows, found, 1.0)), dtype=np.float64)
        return _normalized(rows, np.where(rows.available, risen, 0.0))

    return calibrate


_CALIBRATIONS: dict[CalibrationName, Callable[[Dataset, Float64], _Calibrated]] = {
    "temperature": _temperature,
    "isotonic": _isotonic,
}
