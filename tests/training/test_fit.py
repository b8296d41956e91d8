"""Fitting: oracles that predict, in units of reward, the same each time, and a learner that goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.config import DecisionPoint
from engine.oracles import LinearLearner
from engine.store import PolicyStore
from tests.training.world import NAME, POINT, World, dataset_of
from training.config import LightGBMConfig
from training.dataset import Dataset
from training.evaluation.target import policy_prediction
from training.fit import FITTERS, Fitted, candidate, fit_lightgbm, fit_linear

TREES = LightGBMConfig(trees=40)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return dataset_of(World(seed=1).stream(None, 1_500))


def fitted(name: str, rows: Dataset, point: DecisionPoint = POINT, seed: int = 0) -> Fitted:
    return FITTERS[name](rows, point, TREES, seed)  # type: ignore[index]  # a name of the test's parameters


@pytest.mark.parametrize("name", FITTERS)
def test_the_right_action_gets_the_greatest_score(name: str, rows: Dataset) -> None:
    policy = candidate(NAME, POINT, fitted(name, rows), generation=2, created_ms=7)
    held = dataset_of(World(seed=2).stream(None, 400))
    scores = policy_prediction(policy, held).mean.reshape(-1, 4)
    right = held.context[:, :4].argmax(axis=1)
    assert (scores.argmax(axis=1) == right).mean() > 0.95
    truth = np.where(np.arange(4) == right[:, None], 0.85, 0.15)
    assert np.mean((scores - truth) ** 2) < 0.03  # in units of reward; 0.09 if all actions looked alike
    assert (policy.generation, policy.update, policy.learned, policy.created_ms) == (2, 0, 1_500, 7)
    assert policy.version.startswith("g2.0-")


@pytest.mark.parametrize("name", FITTERS)
def test_the_same_rows_and_seed_give_the_same_policy_bit_for_bit(name: str, rows: Dataset) -> None:
    digests = {
        candidate(NAME, POINT, fitted(name, rows, seed=3), generation=1, created_ms=hour).digest() for hour in (1, 2)
    }
    assert len(digests) == 1
    other = candidate(NAME, POINT, fitted(name, rows.rows(slice(1_499))), generation=1, created_ms=1)
    assert other.digest() not in digests


@pytest.mark.parametrize("name", FITTERS)
def test_a_fitted_policy_survives_its_file(name: str, rows: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    policy = candidate(NAME, POINT, fitted(name, rows), generation=1, created_ms=1)
    store = PolicyStore(tmp_path_factory.mktemp("policies"))
    store.save(policy)
    assert_array_equal(
        policy_prediction(store.load(NAME, policy.version), rows.rows(slice(50))).mean,
        policy_prediction(policy, rows.rows(slice(50))).mean,
    )


def test_the_linear_learner_goes_on_as_if_it_had_learned_online(rows: Dataset) -> None:
    learner, vocabulary = fit_linear(rows.rows(slice(1_000)), POINT)
    assert learner.learned == 1_000
    assert set(vocabulary) == {"north", "east", "south", "west"}
    more = rows.rows(slice(1_000, 1_500))
    learner.partial_fit(more.chosen_matrix(), more.chosen_actions(), more.reward)
    online = LinearLearner(rows.width)
    online.partial_fit(rows.chosen_matrix(), rows.chosen_actions(), rows.reward)
    assert_allclose(learner.oracle().theta, online.oracle().theta, rtol=1e-9)


def test_the_points_own_settings_are_used(rows: Dataset) -> None:
    oracle = {"kind": "linear", "ridge": 7.0, "forgetting": 0.99, "max_actions": 2}
    point = POINT.model_copy(update={"policy": POINT.policy.model_validate({"oracle": oracle})})
    learner, vocabulary = fit_linear(rows, point)
    assert (learner.ridge, learner.forgetting, learner.max_actions) == (7.0, 0.99, 2)
    assert len(vocabulary) == 2


def with_range(low: float, high: float) -> DecisionPoint:
    return POINT.model_copy(update={"reward": POINT.reward.model_copy(update={"range": (low, high)})})


@pytest.mark.parametrize(
    ("low", "high", "objective"), [(0.0, 1.0, "binary"), (-1.0, 1.0, "regression"), (0.0, 10.0, "regression")]
)
def test_predictions_are_in_units_of_reward_whatever_the_range(
    rows: Dataset, low: float, high: float, objective: str
) -> None:
    scaled = replace(rows, reward=low + rows.reward * (high - low))
    oracle, vocabulary = fit_lightgbm(scaled, with_range(low, high), TREES, seed=0)
    assert f"objective={objective}" in oracle.text
    predicted = oracle.predict(rows.chosen_matrix(), rows.codes(vocabulary)[rows.chosen_flat])
    assert predicted.mean() == pytest.approx(scaled.reward.mean(), abs=0.02 * (high - low))
    assert predicted.min() < low + 0.3 * (high - low)
    assert predicted.max() > low + 0.7 * (high - low)


def test_rewards_between_the_ends_are_fitted_by_squared_loss(rows: Dataset) -> None:
    oracle, _ = fit_lightgbm(replace(rows, reward=rows.reward * 0.5), POINT, TREES, seed=0)
    assert "objective=regression" in oracle.text


def test_an_action_that_was_never_drawn_has_a_score_too(rows: Dataset) -> None:
    oracle, vocabulary = fit_lightgbm(rows, POINT, TREES, seed=0)
    assert "new" not in vocabulary
    scores = oracle.predict(rows.rows(slice(5)).chosen_matrix(), np.zeros(5, dtype=np.int64))
    assert ((scores > 0.0) & (scores < 1.0)).all()


def test_the_action_is_a_category_and_not_a_size(rows: Dataset) -> None:
    oracle, _ = fit_lightgbm(rows, POINT, TREES, seed=0)
    width = rows.width
    splits = [line for line in oracle.text.splitlines() if line.startswith(("split_feature=", "decision_type="))]
    features = [int(f) for line in splits[::2] for f in line.partition("=")[2].split()]
    kinds = [int(k) for line in splits[1::2] for k in line.partition("=")[2].split()]
    on_code = [kind & 1 for feature, kind in zip(features, kinds, strict=True) if feature == width]
    assert on_code  # the trees do look at the action
    assert all(on_code)  # bit 0 of a decision type marks a categorical split


def test_rewards_that_are_all_alike_are_no_error(rows: Dataset) -> None:
    for name in FITTERS:
        policy = candidate(
            NAME, POINT, fitted(name, replace(rows, reward=np.ones(len(rows)))), generation=1, created_ms=1
        )
        assert policy_prediction(policy, rows.rows(slice(20))).mean == pytest.approx(1.0, abs=0.05)
