"""What a window is worth: coverage, trajectory quality, and the diagnostics of its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.arrays import Bandit, like_logging
from tests.training.world import World, dataset_of
from training.dataset import Dataset
from training.evaluation.diagnostics import divergence
from training.evaluation.weight_tail import weight_tail
from training.window_quality import coverage, trajectory_quality, window_quality


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return dataset_of(World(seed=2).stream(None, 600))


def test_coverage_is_the_share_of_what_was_to_be_had_that_was_tried(rows: Dataset) -> None:
    assert coverage(rows) > 0.8  # kinds of context that came once or twice have not had every action
    one = replace(rows, chosen=np.zeros_like(rows.chosen))
    assert coverage(one) == pytest.approx(0.25)  # one of four actions in each kind of context
    few = coverage(rows.rows(slice(10)))
    assert 0.25 <= few < 0.7
    excluded = replace(one, available=np.tile([True, False, False, False], len(rows)))
    assert coverage(excluded) == 1.0  # there was nothing else to be had


def test_trajectory_quality_lies_between_the_worst_and_the_best_policy(rows: Dataset) -> None:
    q_hat = np.tile([0.1, 0.3, 0.5, 0.9], len(rows))
    assert trajectory_quality(replace(rows, reward=np.full(len(rows), 0.1)), q_hat) == pytest.approx(0.0)
    assert trajectory_quality(replace(rows, reward=np.full(len(rows), 0.5)), q_hat) == pytest.approx(0.5)
    assert trajectory_quality(replace(rows, reward=np.full(len(rows), 0.9)), q_hat) == pytest.approx(1.0)
    assert trajectory_quality(rows, np.zeros_like(q_hat)) == 1.0
    # The best action cannot be had: the best policy is another.
    without = replace(rows, available=np.tile([True, True, True, False], len(rows)))
    assert trajectory_quality(replace(without, reward=np.full(len(rows), 0.5)), q_hat) == pytest.approx(1.0)


def test_positives_are_counted_in_the_upper_half_of_the_range(rows: Dataset) -> None:
    found = window_quality(rows, rows, np.zeros(len(rows.probabilities)), (0.0, 1.0), drifts=3)
    assert found.positives == pytest.approx(rows.reward.mean())
    assert found.drifts == 3
    assert window_quality(rows, rows, np.zeros(len(rows.probabilities)), (0.0, 4.0)).positives == 0.0


def test_a_policy_is_no_distance_from_itself_and_infinitely_far_from_what_could_not_be_drawn() -> None:
    rows = Bandit().sample(100, seed=1)
    assert divergence(like_logging(rows)).total_variation == divergence(like_logging(rows)).kl == 0.0
    found = divergence(rows)
    assert 0.0 < found.total_variation < 1.0
    assert found.kl >= 2.0 * found.total_variation**2  # Pinsker
    logged = np.tile([1.0, 0.0, 0.0, 0.0], 100)
    never = replace(rows, logged=logged, chosen=rows.starts[:-1])
    assert divergence(never).kl == np.inf


def test_the_index_of_a_tail_is_found() -> None:
    rng = np.random.default_rng(1)
    for index in (1.2, 2.5):
        found = weight_tail(rng.pareto(index, size=200_000) + 1.0)
        assert found.hill == pytest.approx(index, rel=0.1)  # three standard errors: index / sqrt(2 000)
    heavy, light = (weight_tail(rng.pareto(index, size=20_000) + 1.0).share for index in (1.2, 5.0))
    assert heavy > 0.2 > light


def test_weights_of_few_rows_or_of_none_have_no_index() -> None:
    assert np.isnan(weight_tail(np.ones(5)).hill)
    found = weight_tail(np.zeros(100))
    assert (found.share, np.isnan(found.hill)) == (0.0, True)
