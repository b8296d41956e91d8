"""What every oracle owes, whichever it is (a new one is found by itself), and what the linear learner owes."""

from __future__ import annotations

import importlib
import io
import itertools
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from pydantic import TypeAdapter

import engine.oracles
from engine.config import DecisionPoint, OracleConfig
from engine.features import Float32
from engine.oracles import (
    ORACLES,
    CalibratedOracle,
    Columns,
    Learner,
    LightGBMOracle,
    LinearLearner,
    LinearOracle,
    MixtureOracle,
    Oracle,
    TabularOracle,
    learner_of,
)
from engine.oracles.events import EventLearner
from engine.policy import Policy
from engine.store import PolicyStore
from tests.contract.learning import events_of

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

WIDTH = 5
VOCABULARY = ("north", "east", "south")
POINT = DecisionPoint.model_validate({"context": {"taste": {"type": "vector", "size": WIDTH}}})


def rows(count: int, seed: int = 0) -> tuple[Float32, Int64]:
    """Return encoded rows and codes."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, WIDTH)).astype(np.float32), rng.integers(0, len(VOCABULARY) + 1, count)


def boosted() -> LightGBMOracle:
    """Return trees that use every column and the code."""
    X, codes = rows(600, seed=3)
    y = np.sin(X).sum(axis=1) + codes
    parameters = {"objective": "regression", "num_leaves": 15, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(np.column_stack([X, codes]), y), 20)
    return LightGBMOracle(booster.model_to_string())


def taught(config: dict[str, Any], learning: str = "plain") -> Learner:
    """Return a learner of a configuration that knows the three actions."""
    learner = learner_of(TypeAdapter(OracleConfig).validate_python(config), Columns(3, 2))
    X, codes = rows(400, seed=11)
    actions = [VOCABULARY[max(code, 1) - 1] for code in codes]
    rewards = np.sin(X).sum(axis=1) + codes
    if isinstance(learner, EventLearner):
        learner.learn_events(events_of(X, actions, rewards))
    else:
        learner.partial_fit(X, actions, rewards)
    return learner


#: An instance of each kind, over rows of WIDTH columns and codes 0 to 3.
SAMPLES: dict[str, Oracle] = {
    "linear": LinearOracle(np.random.default_rng(5).normal(size=(1 + len(VOCABULARY), 1 + WIDTH))),
    "lightgbm": boosted(),
    "tabular": TabularOracle(np.random.default_rng(6).normal(size=(3, 1 + len(VOCABULARY))), np.array([1, 0, 2]), 1),
    "online_linear": taught({"kind": "online_linear", "bits": 10}).oracle(),
    "online_logistic": taught({"kind": "online_logistic", "bits": 10}).oracle(),
    "recursive_ridge": taught({"kind": "recursive_ridge", "features": {"kind": "fourier", "size": 8}}).oracle(),
    "sklearn": taught({"kind": "sklearn", "estimator": "MLPRegressor", "every": 300}).oracle(),
    "ensemble": taught({"kind": "ensemble", "members": 3}).oracle(),
    "intercepts": taught({"kind": "intercepts"}).oracle(),
}
SAMPLES["mixture"] = MixtureOracle(
    [SAMPLES["linear"], SAMPLES["lightgbm"], SAMPLES["sklearn"]],
    np.array([[0, 1, 2, 3], [0, 3, 1, 2], [0, 1, 0, 3]]),
    0.5,
    max_change=2.0,
    dead_band=0.01,
)
SAMPLES["calibrated"] = CalibratedOracle(SAMPLES["lightgbm"], 0.25, 0.5)
every_oracle = pytest.mark.parametrize("oracle", SAMPLES.values(), ids=SAMPLES)


def test_every_oracle_of_the_package_is_registered_under_its_name_and_has_a_sample() -> None:
    found = set()
    for module in pkgutil.iter_modules(engine.oracles.__path__, "engine.oracles."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and "kind" in vars(value) and {"predict", "from_arrays"} <= set(dir(value)):
                found.add(value)
    assert found == set(ORACLES.values())
    assert all(oracle.kind == kind for kind, oracle in SAMPLES.items())
    assert {kind: type(oracle) for kind, oracle in SAMPLES.items()} == ORACLES


@every_oracle
def test_one_finite_score_for_each_row_that_depends_on_row_and_action(oracle: Oracle) -> None:
    X, codes = rows(200)
    scores = oracle.predict(X, codes)
    assert scores.shape == (200,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    # A table has one score for each of its cells, and of these rows it knows the action alone.
    assert len(np.unique(scores)) > (3 if isinstance(oracle, TabularOracle) else 100)
    assert not np.array_equal(scores, oracle.predict(X, (codes + 1) % 4))


@every_oracle
def test_arrays_are_all_that_it_is(oracle: Oracle) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **oracle.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as archive:
        again = ORACLES[oracle.kind].from_arrays(dict(archive))
    X, codes = rows(300)
    assert again.predict(X, codes).tobytes() == oracle.predict(X, codes).tobytes()
    assert {key: array.tobytes() for key, array in again.arrays().items()} == {
        key: array.tobytes() for key, array in oracle.arrays().items()
    }


@every_oracle
def test_a_policy_comes_back_from_the_store_bit_for_bit(oracle: Oracle, tmp_path: Path) -> None:
    policy = Policy("offers", POINT, VOCABULARY, oracle, generation=2, update=7, learned=600, created_ms=1_000)
    store = PolicyStore(tmp_path)
    store.publish(policy)
    again = store.load("offers", store.current("offers") or "")
    X, codes = rows(300)
    assert again.version == policy.version
    assert again.manifest() == policy.manifest()
    assert again.oracle.predict(X, codes).tobytes() == oracle.predict(X, codes).tobytes()


@every_oracle
def test_many_threads_get_what_one_gets(oracle: Oracle) -> None:
    requests = [rows(count, seed) for seed, count in enumerate([1, 3, 20, 100, 7, 1, 50, 200] * 20)]
    alone = [oracle.predict(*request).tobytes() for request in requests]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda request: oracle.predict(*request).tobytes(), requests))
    assert together == alone


@every_oracle
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60))
def test_a_row_is_scored_the_same_whichever_rows_stand_beside_it(oracle: Oracle, seed: int, count: int) -> None:
    X, codes = rows(60, seed)
    scores = oracle.predict(X, codes)
    some = np.random.default_rng(seed).choice(60, count)  # with repetitions, in any order
    assert oracle.predict(X[some], codes[some]).tobytes() == scores[some].tobytes()
    # The same numbers in another layout of memory are the same rows.
    assert oracle.predict(np.asfortranarray(X), codes).tobytes() == scores.tobytes()
    assert oracle.predict(np.repeat(X, 2, axis=1)[:, ::2], codes).tobytes() == scores.tobytes()


@every_oracle
def test_no_candidate_costs_no_error(oracle: Oracle) -> None:
    assert oracle.predict(np.zeros((0, WIDTH), np.float32), np.zeros(0, np.int64)).shape == (0,)


@every_oracle
def test_damaged_arrays_are_refused(oracle: Oracle) -> None:
    kind = ORACLES[oracle.kind]
    for key, array in oracle.arrays().items():
        others = {name: other for name, other in oracle.arrays().items() if name != key}
        with pytest.raises((KeyError, ValueError)):
            kind.from_arrays(others)
        for damaged in (array.reshape(-1)[:-1], array.reshape(-1)[:0], np.array("text"), np.array([[["?"]]])):
            with pytest.raises((ValueError, TypeError, KeyError)):
                kind.from_arrays({**others, key: damaged})


def test_a_lightgbm_text_cut_or_changed_anywhere_is_refused_before_its_parser_sees_it() -> None:
    # Some cut texts are read as smaller models, others end the process.
    arrays = SAMPLES["lightgbm"].arrays()
    for length in range(0, arrays["model"].size, 200):
        with pytest.raises(ValueError, match="checksum"):
            LightGBMOracle.from_arrays({**arrays, "model": arrays["model"][:length]})
        changed = np.array(arrays["model"], dtype=np.uint8)
        changed[length] ^= 1
        with pytest.raises(ValueError, match="checksum"):
            LightGBMOracle.from_arrays({**arrays, "model": changed})
    with pytest.raises(ValueError, match="no readable LightGBM model"):
        LightGBMOracle("no model")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_coefficients_that_are_not_finite_are_refused(wrong: float) -> None:
    theta = np.zeros((2, 3))
    theta[1, 2] = wrong
    with pytest.raises(ValueError, match="finite"):
        LinearOracle.from_arrays({"theta": theta})


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (3,), (2, 2, 2)])
def test_coefficients_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be a matrix"):
        LinearOracle.from_arrays({"theta": np.zeros(shape)})


def test_coefficients_cannot_be_changed() -> None:
    oracle = LinearOracle(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="read-only"):
        oracle.theta[0, 0] = 1.0


@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 8, 9, 64, 511, 8_191, 8_192, 8_193, 16_385])
def test_linear_scores_of_a_row_have_the_same_bits_at_any_width_and_number_of_rows(width: int) -> None:
    rng = np.random.default_rng(width)
    most = 20_000 if width < 10 else 200 if width < 1_000 else 12
    oracle = LinearOracle(rng.normal(size=(4, 1 + width)))
    X, codes = rng.normal(size=(most, width)).astype(np.float32), rng.integers(0, 4, most)
    scores = oracle.predict(X, codes)
    for count in (1, 2, 5, most // 2):
        for start in (0, most // 3):
            part = slice(start, start + count)
            assert oracle.predict(X[part], codes[part]).tobytes() == scores[part].tobytes()
    exact = oracle.theta[codes, 0] + (oracle.theta[codes, 1:] * X).sum(axis=1)
    assert_allclose(scores, exact, rtol=0.0, atol=1e-11 * (1 + width))


# The learner of the linear oracle.


class Rows:
    """Feedback to learn from: three actions of unequal number, noisy rewards, unequal weights."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.X = rng.normal(size=(count, WIDTH)).astype(np.float32)
        self.actions = rng.choice(["north", "east", "south"], size=count, p=[0.7, 0.25, 0.05]).tolist()
        self.rewards: Float64 = rng.normal(size=count) + self.X[:, 0]
        self.weights: Float64 = rng.uniform(0.1, 3.0, size=count)

    def teach(self, learner: LinearLearner, start: int = 0, stop: int | None = None) -> LinearLearner:
        """Let a learner learn a part in one batch."""
        part = slice(start, stop)
        learner.partial_fit(self.X[part], self.actions[part], self.rewards[part], self.weights[part])
        return learner


def by_action(learner: LinearLearner) -> dict[str, Float64]:
    """Return the coefficients by action id; ``""``: the shared ones."""
    return dict(zip(["", *learner.vocabulary], learner.oracle().theta, strict=True))


def ridge_solution(Z: Float64, y: Float64, w: Float64, ridge: float, towards: Float64) -> Float64:
    """Return argmin of sum w (y - Z theta)^2 + ridge |theta - towards|^2, by least squares on stacked rows."""
    root = np.sqrt(w)
    stacked = np.vstack([Z * root[:, None], np.sqrt(ridge) * np.eye(Z.shape[1])])
    target = np.concatenate([(y - Z @ towards) * root, np.zeros(Z.shape[1])])
    solution: Float64 = towards + np.linalg.lstsq(stacked, target, rcond=None)[0]
    return solution


def expected_coefficients(data: Rows, ridge: float, forgetting: float) -> dict[str, Float64]:
    """Solve for the coefficients with every row's weight written out."""
    Z = np.hstack([np.ones((len(data.X), 1)), data.X.astype(np.float64)])
    n = len(Z)
    ages = np.arange(n - 1, -1, -1.0)
    shared = ridge_solution(Z, data.rewards, data.weights * forgetting**ages, ridge, np.zeros(1 + WIDTH))
    solution = {"": shared}
    for action in dict.fromkeys(data.actions):
        mine = np.array([other == action for other in data.actions])
        ages = np.arange(mine.sum() - 1, -1, -1.0)
        weights = data.weights[mine] * forgetting**ages
        solution[action] = ridge_solution(Z[mine], data.rewards[mine], weights, ridge, shared)
    return solution


@pytest.mark.parametrize("forgetting", [1.0, 0.98, 0.7])
@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_what_is_learned_is_the_ridge_regression_of_the_rows_that_are_remembered(
    ridge: float, forgetting: float
) -> None:
    data = Rows(500, seed=1)
    learner = data.teach(LinearLearner(WIDTH, ridge=ridge, forgetting=forgetting))
    expected = expected_coefficients(data, ridge, forgetting)
    found = by_action(learner)
    assert set(found) == set(expected)
    for action, theta in expected.items():
        assert_allclose(found[action], theta, rtol=0.0, atol=1e-9)
    assert learner.learned == 500


@settings(max_examples=50)
@given(
    cuts=st.lists(st.integers(0, 120), max_size=12),
    forgetting=st.sampled_from([1.0, 0.9]),
    max_actions=st.sampled_from([1, 2, 256]),
)
def test_any_split_into_batches_learns_the_same(cuts: list[int], forgetting: float, max_actions: int) -> None:
    data = Rows(120, seed=2)
    whole = data.teach(LinearLearner(WIDTH, forgetting=forgetting, max_actions=max_actions))
    split = LinearLearner(WIDTH, forgetting=forgetting, max_actions=max_actions)
    for start, stop in itertools.pairwise([0, *sorted(cuts), 120]):
        data.teach(split, start, stop)
    assert split.vocabulary == whole.vocabulary
    assert split.learned == whole.learned == 120
    assert_allclose(split.oracle().theta, whole.oracle().theta, rtol=0.0, atol=1e-9)


def restored(learner: LinearLearner) -> LinearLearner:
    """Return a learner after a way through a file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **learner.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as archive:
        return LinearLearner.from_arrays(dict(archive))


@pytest.mark.parametrize("forgetting", [1.0, 0.95])
def test_a_restart_in_the_middle_changes_no_bit(forgetting: float) -> None:
    data = Rows(300, seed=4)
    through, stopped = (LinearLearner(WIDTH, ridge=0.3, forgetting=forgetting, max_actions=2) for _ in range(2))
    for start in range(0, 300, 50):
        data.teach(through, start, start + 50)
        stopped = restored(data.teach(stopped, start, start + 50))
    assert stopped.vocabulary == through.vocabulary
    assert stopped.learned == through.learned
    assert stopped.oracle().theta.tobytes() == through.oracle().theta.tobytes()


def test_a_learner_that_has_seen_nothing_can_be_restored() -> None:
    again = restored(LinearLearner(WIDTH, max_actions=3))
    assert (again.width, again.vocabulary, again.learned, again.max_actions) == (WIDTH, [], 0, 3)
    assert not again.oracle().theta.any()


@pytest.mark.parametrize("names", [["a\0", "a"], ["", "é", "行動", "x" * 5_000], ['"', "\\", "\n"]])
def test_any_action_id_survives_a_restart(names: list[str]) -> None:
    learner = LinearLearner(0)
    learner.partial_fit(np.zeros((len(names), 0), np.float32), names, np.arange(len(names), dtype=np.float64))
    assert restored(learner).vocabulary == names


def test_statistics_that_do_not_fit_each_other_are_refused() -> None:
    arrays: dict[str, Any] = dict(Rows(50).teach(LinearLearner(WIDTH)).arrays())
    for key in ("A", "b"):
        for damaged in (arrays[key][:-1], arrays[key][:, :-1], arrays[key].reshape(-1), np.zeros(0)):
            with pytest.raises(ValueError, match="do not fit"):
                LinearLearner.from_arrays({**arrays, key: damaged})
    with pytest.raises(ValueError, match="do not fit"):
        LinearLearner.from_arrays({**arrays, "vocabulary": np.frombuffer(b'["north"]', np.uint8)})
    with pytest.raises(ValueError):
        LinearLearner.from_arrays({**arrays, "vocabulary": arrays["vocabulary"][:-1]})


def test_an_action_never_seen_is_scored_as_actions_are_in_general() -> None:
    data = Rows(200, seed=6)
    oracle = data.teach(LinearLearner(WIDTH)).oracle()
    X, _ = rows(20)
    shared = ridge_solution(
        np.hstack([np.ones((200, 1)), data.X.astype(np.float64)]), data.rewards, data.weights, 1.0, np.zeros(1 + WIDTH)
    )
    assert_allclose(oracle.predict(X, np.zeros(20, np.int64)), shared[0] + X @ shared[1:], rtol=0.0, atol=1e-9)


def test_an_action_seen_once_stays_near_the_shared_score_and_one_seen_often_goes_its_own_way() -> None:
    learner = LinearLearner(0, ridge=10.0)
    learner.partial_fit(np.zeros((1_000, 0), np.float32), ["usual"] * 1_000, np.zeros(1_000))
    scores = {}
    for seen in range(1, 1_001):
        learner.partial_fit(np.zeros((1, 0), np.float32), ["new"], np.ones(1))
        scores[seen] = learner.oracle().predict(np.zeros((1, 0), np.float32), np.array([2]))[0]
    assert scores[1] < 0.2
    assert scores[1_000] > 0.95
    assert list(scores.values()) == sorted(scores.values())


def test_beyond_max_actions_actions_share_one_regression_and_teach_it() -> None:
    names = [f"action-{i}" for i in range(40)]
    rng = np.random.default_rng(8)
    X, rewards = rng.normal(size=(40, WIDTH)).astype(np.float32), rng.normal(size=40)
    learner, unlimited = LinearLearner(WIDTH, max_actions=10), LinearLearner(WIDTH)
    for each in (learner, unlimited):
        each.partial_fit(X, names, rewards)
        each.partial_fit(X, names, rewards)
    assert learner.vocabulary == names[:10]
    assert learner.learned == 80
    theta = learner.oracle().theta
    assert theta.shape == (11, 1 + WIDTH)
    # The thirty others are in the shared row, and the ten are not disturbed by them.
    assert theta.tobytes() == unlimited.oracle().theta[:11].tobytes()


def test_a_weight_of_three_is_the_row_three_times() -> None:
    data = Rows(60, seed=9)
    times = np.random.default_rng(1).integers(1, 4, 60)
    weighted, repeated = LinearLearner(WIDTH), LinearLearner(WIDTH)
    weighted.partial_fit(data.X, data.actions, data.rewards, times.astype(np.float64))
    repeated.partial_fit(
        np.repeat(data.X, times, axis=0), np.repeat(data.actions, times).tolist(), np.repeat(data.rewards, times)
    )
    found, expected = by_action(weighted), by_action(repeated)
    for action, theta in expected.items():
        assert_allclose(found[action], theta, rtol=0.0, atol=1e-9)
    ones, none = LinearLearner(WIDTH), LinearLearner(WIDTH)
    ones.partial_fit(data.X, data.actions, data.rewards, np.ones(60))
    none.partial_fit(data.X, data.actions, data.rewards)
    assert ones.oracle().theta.tobytes() == none.oracle().theta.tobytes()


def test_an_oracle_once_given_out_does_not_change() -> None:
    data = Rows(100)
    learner = data.teach(LinearLearner(WIDTH), 0, 50)
    oracle = learner.oracle()
    before = oracle.theta.tobytes()
    data.teach(learner, 50)
    assert oracle.theta.tobytes() == before
    assert learner.oracle().theta.tobytes() != before


def test_an_empty_batch_teaches_nothing() -> None:
    learner = Rows(50).teach(LinearLearner(WIDTH, forgetting=0.9))
    before = learner.oracle().theta.tobytes()
    learner.partial_fit(np.zeros((0, WIDTH), np.float32), [], np.zeros(0))
    assert learner.oracle().theta.tobytes() == before
    assert learner.learned == 50
