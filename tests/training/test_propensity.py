"""Propensities that were not logged: how near an estimate comes, and that nobody takes it for the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.world import POINT, World, dataset_of, trained
from training.config import LightGBMConfig
from training.dataset import Dataset
from training.evaluation.policy import Feedback, evaluate_policy
from training.evaluation.propensity import estimate_propensities
from training.evaluation.reward_model import cross_fit

TREES = LightGBMConfig(trees=15)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Feedback of a policy that prefers the right action of each context, with one excluded now and then."""
    world = World(seed=8)
    return dataset_of(world.stream(trained(world, 800), 1_500, excluded=True))


@pytest.mark.parametrize("model", ["logistic", "lightgbm"])
@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_estimates_are_vectors_near_those_that_were_drawn_from(rows: Dataset, model: str, calibration: str) -> None:
    found = estimate_propensities(rows, model, calibration)  # type: ignore[arg-type]
    sums = np.add.reduceat(found, rows.starts[:-1])
    assert sums == pytest.approx(np.ones(len(rows)))
    assert (found[rows.available] > 0.0).all()
    assert (found[~rows.available] == 0.0).all()
    count = np.add.reduceat(rows.available.astype(float), rows.starts[:-1])
    uniform = rows.available / np.repeat(count, np.diff(rows.starts))

    def apart(p: np.ndarray) -> float:
        return float(np.abs(p - rows.probabilities).mean())

    assert apart(found) < 0.6 * apart(uniform)


def test_the_logged_probabilities_are_not_looked_at(rows: Dataset) -> None:
    blind = replace(rows, probabilities=np.full_like(rows.probabilities, np.nan))
    np.testing.assert_array_equal(estimate_propensities(blind), estimate_propensities(rows))


def test_no_row_stands_in_its_own_estimate(rows: Dataset) -> None:
    before = estimate_propensities(rows)
    other = rows.chosen.copy()
    other[7] = (other[7] + 1) % 4
    after = estimate_propensities(replace(rows, chosen=other))
    mine = slice(rows.starts[7], rows.starts[8])
    np.testing.assert_array_equal(after[mine], before[mine])
    assert not np.array_equal(after, before)


def test_what_is_made_of_them_says_so(rows: Dataset) -> None:
    guessed = replace(rows, probabilities=estimate_propensities(rows))
    q_hat = cross_fit(guessed, POINT)
    policy = trained(World(seed=8), 500)
    found = evaluate_policy(policy, Feedback(guessed, q_hat, estimated=True))
    assert found.rows.estimated
    assert all(estimate.estimated for estimate in found.estimates.values())
    assert not any(e.estimated for e in evaluate_policy(policy, Feedback(rows, q_hat)).estimates.values())


def test_what_cannot_be_estimated_is_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="choose logistic or lightgbm"):
        estimate_propensities(rows, "logged")
    with pytest.raises(ValueError, match="widen the window"):
        estimate_propensities(rows.rows(slice(2)))
    with pytest.raises(ValueError, match="at least 3"):
        estimate_propensities(rows, folds=2)


@pytest.mark.parametrize("model", ["configured", "lightgbm"])
def test_any_oracle_can_be_the_reward_model(rows: Dataset, model: str) -> None:
    found = cross_fit(rows, POINT, model=model, lightgbm=TREES)  # type: ignore[arg-type]
    residual = rows.reward - found[rows.chosen_flat]
    assert residual.var() < 0.8 * rows.reward.var()
    other = rows.reward.copy()
    other[7] = 1.0 - other[7]
    after = cross_fit(replace(rows, reward=other), POINT, model=model, lightgbm=TREES)  # type: ignore[arg-type]
    mine = slice(rows.starts[7], rows.starts[8])
    np.testing.assert_array_equal(after[mine], found[mine])
