from __future__ import annotations

import numpy as np
import pytest

from monitoring.observations import binarised, binned, quantile_edges
from monitoring.rbocpd import RBOCPD


def test_binarised_values_keep_their_mean_and_depend_on_seed_and_position_alone() -> None:
    values = np.random.default_rng(0).uniform(-1.0, 3.0, 40_000)
    bits = binarised(values, -1.0, 3.0, seed=5, first=0)
    assert bits.mean() == pytest.approx((values.mean() + 1) / 4, abs=0.01)
    pieces = [binarised(values[a:b], -1.0, 3.0, 5, a) for a, b in ((0, 1), (1, 700), (700, 40_000))]
    assert np.concatenate(pieces).tolist() == bits.tolist()
    assert binarised(values, -1.0, 3.0, seed=6, first=0).tolist() != bits.tolist()
    assert binarised([-1.0, 3.0] * 50, -1.0, 3.0, 5, 0).tolist() == [0, 1] * 50


def test_draws_of_neighbouring_seeds_and_positions_are_independent() -> None:
    draws = np.array([binarised(np.full(4_000, 0.5), 0.0, 1.0, seed, 0) for seed in range(20)]) - 0.5
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(20)).max() < 0.08
    assert all(abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 0.08 for row in draws)


def test_a_change_of_a_bounded_value_is_found_across_a_restart() -> None:
    rng = np.random.default_rng(1)
    values = np.clip(np.r_[rng.normal(0.3, 0.1, 800), rng.normal(0.7, 0.1, 200)], 0, 1)
    detector = RBOCPD()
    assert detector.update_many(binarised(values[:500], 0.0, 1.0, 3, detector.seen)) == []
    detector = RBOCPD.load(detector.save())
    (change,) = detector.update_many(binarised(values[500:], 0.0, 1.0, 3, detector.seen))
    assert abs(change.index - 800) <= 15


def test_bins_of_a_reference_window_see_a_change_of_spread() -> None:
    rng = np.random.default_rng(2)
    edges = quantile_edges(rng.normal(size=5_000), 10)
    assert len(edges) == 9
    values = np.r_[rng.normal(size=1_000), rng.normal(scale=2.0, size=300)]
    found = RBOCPD(categories=11).update_many(binned(values, edges))
    assert [abs(change.index - 1_000) <= 30 for change in found] == [True]


def test_a_value_that_repeats_has_a_bin_of_its_own() -> None:
    edges = quantile_edges([0.5] * 90 + [0.7] * 10, 10)
    assert len(set(binned([0.4, 0.5, 0.6], edges).tolist())) == 3
    found = RBOCPD(categories=len(edges) + 2).update_many(binned([0.5] * 200 + [0.6, 0.62, 0.58] * 10, edges))
    assert [change.index for change in found] == [200]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: binarised([0.5], 1.0, 1.0, 0, 0), "low"),
        (lambda: binarised([1.5], 0.0, 1.0, 0, 0), "got 1.5"),
        (lambda: binarised([float("nan")], 0.0, 1.0, 0, 0), "got nan"),
        (lambda: quantile_edges([1.0, 2.0], 3), "at least 3"),
        (lambda: quantile_edges([1.0, 2.0], 1), "bins"),
    ],
)
def test_impossible_values_are_named(make: object, named: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=named):
        make()
