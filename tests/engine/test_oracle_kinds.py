"""What each kind of oracle promises beyond the contract, against the plain formulas of its paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.ensemble
import sklearn.linear_model
import sklearn.neural_network
import sklearn.tree
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.config import DecisionPoint, FourierConfig, PolicyConfig, RecursiveRidgeConfig
from engine.config.oracle import ESTIMATORS, Estimator, SklearnConfig
from engine.oracles import Columns, Events, LinearLearner, make_learner
from engine.oracles.ensemble import bootstrap_weights
from engine.oracles.in_process import InProcessLearner
from engine.oracles.online import OnlineLinearLearner, OnlineLogisticLearner
from engine.oracles.online_kernels import logistic_move, place
from engine.oracles.recursive_ridge import RecursiveRidgeLearner
from engine.oracles.reduction import estimates, reduce
from engine.oracles.sklearn import SklearnOracle, design
from engine.oracles.sklearn_learners import estimator_of

Float64 = NDArray[np.float64]


def data(n: int, width: int, seed: int = 0) -> tuple[NDArray[np.float32], list[str], Float64, Float64]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, width)).astype(np.float32)
    actions = rng.choice(["a", "b", "c"], size=n, p=[0.6, 0.3, 0.1]).tolist()
    return X, actions, X[:, 0] + rng.normal(size=n), rng.uniform(0.2, 3.0, n)


@pytest.mark.parametrize("structure", ["shared", "per_action", "hierarchical"])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_recursive_ridge_is_the_direct_solution_with_its_exact_uncertainty(structure: str, ridge: float) -> None:
    X, actions, rewards, weights = data(5_000, 6)
    config = RecursiveRidgeConfig.model_validate({"structure": structure, "ridge": ridge, "noise": 0.5})
    learner = RecursiveRidgeLearner(Columns(6), config)
    learner.partial_fit(X, actions, rewards, weights)
    oracle = learner.oracle()
    Z = np.hstack([np.ones((5_000, 1)), X.astype(np.float64)])
    shared = np.linalg.solve((Z.T * weights) @ Z + ridge * np.eye(7), Z.T @ (weights * rewards))
    for code, action in enumerate(learner.vocabulary or ["any"], start=1):
        mine = np.array([structure == "shared" or action == other for other in actions])
        z, r, w = Z[mine], rewards[mine], weights[mine]
        A = (z.T * w) @ z + ridge * np.eye(7)
        prior = ridge * shared if structure == "hierarchical" else 0.0
        theta = np.linalg.solve(A, z.T @ (w * r) + prior)
        mean, std = oracle.predict_std(X[:50], np.full(50, code))
        assert_allclose(mean, Z[:50] @ theta, rtol=0.0, atol=1e-9)
        exact = 0.5 * np.sqrt(np.einsum("ij,jk,ik->i", Z[:50], np.linalg.inv(A), Z[:50]))
        assert_allclose(std, exact, rtol=1e-9)


def test_forgetting_keeps_the_inverse_that_of_the_statistics() -> None:
    X, actions, rewards, weights = data(3_000, 4)
    config = RecursiveRidgeConfig(structure="shared", forgetting=0.95, noise=1.0)
    learner = RecursiveRidgeLearner(Columns(4), config)
    learner.partial_fit(X, actions, rewards, weights)
    arrays = learner.arrays()
    upper = np.triu_indices(5)
    A, P = np.zeros((5, 5)), np.zeros((5, 5))
    for matrix, name in ((A, "A"), (P, "P")):
        half = np.asarray(arrays[name], dtype=np.float64)[0]
        matrix[upper], matrix.T[upper] = half, half
    L = np.asarray(arrays["L"], dtype=np.float64)[0]
    assert (L >= 0.5).all()
    assert (L <= 1.0).all()
    assert_allclose(P, np.linalg.inv(A + np.diag(L)), rtol=1e-9)


@pytest.mark.parametrize("size", [1e9, 1e20, 1e37])
def test_no_feature_makes_a_ridge_regression_singular(size: float) -> None:
    X, _, rewards, _ = data(200, 3)
    X[:, 1] *= np.float32(size)
    X[:, 2] = X[:, 1]
    recursive, linear = RecursiveRidgeLearner(Columns(3)), LinearLearner(3)
    codes = np.ones(200, np.int64)
    for learner in (recursive, linear):
        learner.partial_fit(X, ["a"] * 200, rewards)
        found = learner.oracle().predict(X, codes)
        assert np.isfinite(found).all()
        assert np.corrcoef(found, rewards)[0, 1] > 0.5
    _, std = recursive.oracle().predict_std(X, codes)
    assert np.isfinite(std).all()
    assert std.max() < 2.0


def test_uncertainty_falls_with_data_and_is_great_for_a_new_action() -> None:
    X, _, rewards, _ = data(2_000, 3)
    for learner in (RecursiveRidgeLearner(Columns(3)), OnlineLinearLearner(Columns(3), bits=10)):
        learner.partial_fit(X[:20], ["a"] * 20, rewards[:20])
        _, early = learner.oracle().predict_std(X[:100], np.ones(100, np.int64))
        learner.partial_fit(X[20:], ["a"] * 1_980, rewards[20:])
        _, late = learner.oracle().predict_std(X[:100], np.ones(100, np.int64))
        assert late.mean() < 0.3 * early.mean()
    _, new = RecursiveRidgeLearner(Columns(3)).oracle().predict_std(X[:100], np.zeros(100, np.int64))
    assert new.mean() > late.mean()


def test_fourier_features_learn_what_is_no_line() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1_500, 2)).astype(np.float32)
    rewards = np.sin(3.0 * X[:, 0]).astype(np.float64)
    errors = {}
    for name, config in (
        ("raw", RecursiveRidgeConfig()),
        ("fourier", RecursiveRidgeConfig(features=FourierConfig(bandwidth=0.3))),
    ):
        learner = RecursiveRidgeLearner(Columns(2), config)
        learner.partial_fit(X[:1_000], ["a"] * 1_000, rewards[:1_000])
        errors[name] = np.mean((learner.oracle().predict(X[1_000:], np.ones(500, np.int64)) - rewards[1_000:]) ** 2)
    assert errors["fourier"] < 0.1 * errors["raw"]


def twin(X: NDArray[np.float32], y: Float64, weights: Float64, mask: int, rate: float) -> Float64:
    """Normalised adaptive importance-aware updates of the columns and the constant (NAG), as the papers write them."""
    w, s, G = np.zeros(mask + 1), np.zeros(mask + 1), np.zeros(mask + 1)
    N = t = 0.0
    for row, target, h in zip(X.astype(np.float64), y, weights, strict=True):
        where = [place(0, 0, mask), *(place(0, j + 1, mask) for j in range(len(row)))]
        x = np.concatenate([[1.0], row])
        for i, value in zip(where, np.abs(x), strict=True):
            if value > s[i]:
                w[i] *= s[i] / value
                s[i] = value
        N += h * ((x / s[where]) ** 2).sum()
        t += h
        p = w[where] @ x
        G[where] += h * ((p - target) * x) ** 2
        speed = math.sqrt(t / N) / (s[where] * np.sqrt(G[where])) * x
        q = x @ speed
        w[where] += (target - p) * (1.0 - math.exp(-h * rate * q)) / q * speed
    return w


def test_the_compiled_first_order_updates_are_those_of_the_papers() -> None:
    X, _, rewards, weights = data(500, 6)
    learner = OnlineLinearLearner(Columns(6, 0), bits=12, interactions=(), max_actions=1)
    # The one code is taken by an action without weight, so that the rows have no id.
    learner.partial_fit(X[:1], ["other"], rewards[:1], np.zeros(1))
    learner.partial_fit(X, ["a"] * 500, rewards, weights)
    w = twin(X, rewards, weights, 2**12 - 1, 0.5)
    arrays = learner.arrays()
    assert_allclose(np.asarray(arrays["w"], dtype=np.float64), w[np.asarray(arrays["touched"], np.int64)], atol=1e-12)


@settings(max_examples=60)
@given(
    score=st.floats(-20.0, 20.0),
    target=st.sampled_from([0.0, 1.0, 0.3, 0.5, 0.99]),
    push=st.floats(0.0, 50.0),
)
def test_the_logistic_step_is_that_of_many_small_ones_and_never_overshoots(
    score: float, target: float, push: float
) -> None:
    halves = logistic_move(logistic_move(score, target, push / 2.0), target, push / 2.0)
    whole = logistic_move(score, target, push)
    assert whole == pytest.approx(halves, abs=1e-9)
    aim = math.inf * (2.0 * target - 1.0) if target in (0.0, 1.0) else math.log(target / (1.0 - target))
    assert min(score, aim) - 1e-9 <= whole <= max(score, aim) + 1e-9


def test_no_importance_overshoots() -> None:
    X = np.ones((1, 2), np.float32)
    for learner in (OnlineLinearLearner(Columns(2), bits=8), OnlineLogisticLearner(Columns(2), bits=8)):
        before = 0.0
        for weight in (0.1, 1.0, 10.0, 1e6, 1e12):
            learner.partial_fit(X, ["a"], np.array([0.75]), np.array([weight]))
            found = float(learner.oracle().predict(X, np.ones(1, np.int64))[0])
            assert before - 1e-9 <= found <= 0.75 + 1e-9 or learner.kind == "online_logistic"
            before = found
        assert found == pytest.approx(0.75, abs=1e-3)


def test_what_was_never_tried_is_expected_at_the_end_of_the_range_that_is_chosen() -> None:
    for start, expected in (("low", -2.0), ("high", 3.0)):
        learner = OnlineLinearLearner(Columns(2, 0, -2.0, 3.0), interactions=("context:id",), start=start)
        X = np.zeros((1, 2), np.float32)
        assert learner.oracle().predict(X, np.zeros(1, np.int64)).tolist() == [expected]
        for _ in range(30):
            learner.partial_fit(X, ["a"], np.array([1.0]))
        assert learner.oracle().predict(X, np.ones(1, np.int64))[0] == pytest.approx(1.0, abs=0.05)


def test_units_of_features_do_not_matter_to_first_order_updates() -> None:
    X, actions, rewards, _ = data(800, 4)
    scale = np.array([1e-6, 1.0, 1e6, 1e3], np.float32)
    one, other = (OnlineLinearLearner(Columns(4), interactions=("context:id",)) for _ in range(2))
    one.partial_fit(X, actions, rewards)
    other.partial_fit(X * scale, actions, rewards)
    codes = np.arange(800) % 3 + 1
    assert_allclose(one.oracle().predict(X, codes), other.oracle().predict(X * scale, codes), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_arrays_predict_what_scikit_learn_predicts(name: Estimator) -> None:
    X, _, rewards, _ = data(300, 4)
    codes = np.arange(300) % 4
    modules = (sklearn.linear_model, sklearn.neural_network, sklearn.tree, sklearn.ensemble)
    kind = next(getattr(module, name) for module in modules if hasattr(module, name))
    trees = name in ("RandomForestRegressor", "ExtraTreesRegressor")
    small: dict[str, Any] = {"n_estimators": 7} if trees else {}
    if name == "MLPRegressor":
        small = {"max_iter": 2_000, "tol": 0.01}
    if name == "HistGradientBoostingRegressor":
        small = {"max_iter": 5}
    Z = design(X, codes, 3).astype(np.float64)
    model = kind(**small).fit(Z, rewards)
    oracle = SklearnOracle.of(model, 4, 3)
    assert_allclose(oracle.predict(X, codes), model.predict(Z), rtol=0.0, atol=1e-9)
    online = SklearnConfig(estimator=name).online
    assert online == hasattr(model, "partial_fit")


@pytest.mark.parametrize("estimator", ["SGDRegressor", "MLPRegressor"])
@pytest.mark.parametrize(
    "parameters", [{}, {"average": 30}, {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0}]
)
def test_online_estimators_are_those_of_scikit_learn_through_restarts(
    estimator: Estimator, parameters: dict[str, Any]
) -> None:
    if ("average" in parameters) != (estimator == "SGDRegressor") and parameters:
        return
    X, actions, rewards, weights = data(260, 3)
    config = SklearnConfig(estimator=estimator, parameters=parameters, max_actions=3)
    learner: Any = make_learner(
        DecisionPoint.model_validate({"context": {"x": {"type": "vector", "size": 3}}, "policy": {"oracle": config}})
    )
    model = estimator_of(config)
    codes = np.array([1 + list(dict.fromkeys(actions)).index(action) for action in actions])
    Z = design(X, codes, 3).astype(np.float64)
    for start in range(0, 260, 20):
        part = slice(start, start + 20)
        model.partial_fit(Z[part], rewards[part], sample_weight=weights[part])
        learner.partial_fit(X[part], actions[part], rewards[part], weights[part])
        learner = type(learner).from_arrays(learner.arrays())
    assert_allclose(learner.oracle().predict(X, codes), model.predict(Z), rtol=0.0, atol=1e-12)


def test_other_regressors_work_in_one_process_and_are_never_stored() -> None:
    X, actions, rewards, weights = data(400, 3)
    model = sklearn.ensemble.GradientBoostingRegressor(n_estimators=20)
    with pytest.raises(TypeError, match="cannot be stored as arrays; use one of"):
        SklearnOracle.of(model.fit(X, rewards), 3, 0)
    learner = InProcessLearner(model, Columns(3))
    learner.partial_fit(X, actions, rewards, weights)
    found = learner.oracle().predict(X, np.ones(400, np.int64))
    assert np.corrcoef(found, rewards)[0, 1] > 0.5
    with pytest.raises(TypeError, match="cannot be stored"):
        learner.arrays()
    with pytest.raises(TypeError, match="cannot be stored"):
        learner.oracle().arrays()


def test_bootstrap_weights_have_mean_and_variance_one_and_know_no_batches() -> None:
    for poisson in (True, False):
        drawn = bootstrap_weights(0, 20_000, 8, 3, poisson=poisson)
        assert abs(drawn.mean() - 1.0) < 0.01
        assert abs(drawn.var() - 1.0) < 0.03
        assert np.abs(np.corrcoef(drawn) - np.eye(8)).max() < 0.03
        parts = [bootstrap_weights(first, 5_000, 8, 3, poisson=poisson) for first in range(0, 20_000, 5_000)]
        assert np.concatenate(parts, axis=1).tobytes() == drawn.tobytes()


def logged(n: int, seed: int) -> tuple[Events, Float64]:
    """Return decisions of a skewed policy between three actions of known value, and the values."""
    rng = np.random.default_rng(seed)
    p = np.array([0.7, 0.25, 0.05])
    value = np.array([0.2, 0.5, 0.8])
    choice = rng.choice(3, size=n, p=p)
    events = Events(
        X=np.zeros((3 * n, 1), np.float32),
        actions=["a", "b", "c"] * n,
        available=np.ones(3 * n, np.bool_),
        starts=np.arange(0, 3 * n + 1, 3),
        chosen=np.arange(0, 3 * n, 3) + choice,
        propensity=p[choice],
        rewards=(rng.random(n) < value[choice]).astype(np.float64),
        weights=np.ones(n),
    )
    return events, value


@pytest.mark.parametrize("expected", [0.0, 0.5])
def test_estimates_by_propensity_are_right_on_average(expected: float) -> None:
    events, value = logged(60_000, 1)
    found = estimates(events, 1e-3, np.full(180_000, expected)).reshape(-1, 3).mean(axis=0)
    # Four standard errors of the rarest action's estimate: sqrt(1 / 0.05 / 60,000).
    assert_allclose(found, value, rtol=0.0, atol=4.0 * math.sqrt(1.0 / 0.05 / 60_000))


def test_each_reduction_gives_the_rows_that_it_should() -> None:
    events, _ = logged(500, 2)
    X, ids, targets, weights = reduce(events, "mtr", floor=0.1, low=0.0)
    assert (len(X), ids, targets.tolist()) == (500, events.chosen_actions(), events.rewards.tolist())
    assert weights.max() == 10.0  # 1 / 0.05, but for the floor
    assert reduce(events, "plain", floor=0.1, low=0.0)[3].tolist() == [1.0] * 500
    X, ids, targets, weights = reduce(events, "ips", floor=0.01, low=0.0)
    assert (len(X), len(ids), weights.sum()) == (1_500, 1_500, 1_500.0)
    assert np.count_nonzero(targets) == np.count_nonzero(events.rewards)
    with pytest.raises(ValueError, match="needs the expected rewards"):
        reduce(events, "dr", floor=0.01, low=0.0)
    with pytest.raises(ValueError, match="propensities must lie in"):
        Events(**{name: getattr(events, name) for name in Events.__slots__} | {"propensity": np.zeros(500)})


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"oracle": {"kind": "cover"}, "learning": "dr"}, "leave out learning and memory"),
        ({"learning": "dr", "memory": 100}, "memory counts rows"),
        ({"oracle": {"kind": "trees"}, "memory": 100}, "memory of its own"),
        ({"oracle": {"kind": "sklearn", "estimator": "SVR"}}, "HistGradientBoostingRegressor"),
        ({"oracle": {"kind": "sklearn", "estimator": "Ridge"}, "memory": 100}, "memory of its own"),
        (
            {
                "oracle": {
                    "kind": "sklearn",
                    "estimator": "HistGradientBoostingRegressor",
                    "parameters": {"loss": "poisson"},
                }
            },
            "choose squared_error",
        ),
        ({"oracle": {"kind": "online_linear", "interactions": ["id:id"]}}, "interactions"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_configuration_is_read(policy: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicyConfig.model_validate(policy)
