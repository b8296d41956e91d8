"""What every estimator of lists owes, whichever it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from training.evaluation import SLATE_ESTIMATORS, LoggedSlates, SlateEstimator

every_estimator = pytest.mark.parametrize("estimator", SLATE_ESTIMATORS.values(), ids=SLATE_ESTIMATORS)


@st.composite
def logged_slates(draw: st.DrawFn) -> LoggedSlates:
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m = sum(counts)
    return LoggedSlates(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rng.normal(size=m),
        rng.uniform(0.05, 1.0, m),
        rng.uniform(0.0, 1.0, m),
    )


@every_estimator
@given(lists=logged_slates(), factor=st.floats(0.01, 100.0))
def test_one_finite_term_a_list_in_units_of_the_reward(
    estimator: SlateEstimator, lists: LoggedSlates, factor: float
) -> None:
    terms = estimator.contributions(lists)
    assert terms.shape == (len(lists),)
    assert np.isfinite(terms).all()
    scaled = replace(lists, reward=lists.reward * factor)
    assert_allclose(estimator.contributions(scaled), terms * factor, rtol=1e-9, atol=1e-9 * factor)


@every_estimator
@given(lists=logged_slates())
def test_a_policy_that_is_the_logging_one_has_the_mean_reward_that_was(
    estimator: SlateEstimator, lists: LoggedSlates
) -> None:
    same = replace(lists, target=lists.logged)
    assert estimator.contributions(same).mean() == pytest.approx(lists.row_sums(lists.reward).mean())
    assert_allclose(estimator.weights(same), 1.0)


@every_estimator
def test_what_it_says_that_it_estimates_is_found_on_a_large_sample(estimator: SlateEstimator) -> None:
    # Two slots from three items without replacement; the reward of item a is a / 2 in both.
    n, rng = 60_000, np.random.default_rng(7)
    logging, target = np.array([0.3, 0.3, 0.4]), np.array([0.2, 0.2, 0.6])
    first = rng.choice(3, n, p=logging)
    logged, wanted, reward = np.zeros((n, 2)), np.zeros((n, 2)), np.zeros((n, 2))
    logged[:, 0], wanted[:, 0], reward[:, 0] = logging[first], target[first], first / 2
    for item in range(3):
        here, left = first == item, [other for other in range(3) if other != item]
        second = rng.choice(left, int(here.sum()), p=logging[left] / logging[left].sum())
        logged[here, 1] = logging[second] / logging[left].sum()
        wanted[here, 1] = target[second] / target[left].sum()
        reward[here, 1] = second / 2
    lists = LoggedSlates(np.arange(0, 2 * n + 1, 2), reward.ravel(), logged.ravel(), wanted.ravel())
    terms = estimator.contributions(lists)
    # The estimators that weigh each slot by itself take the items before it as the logging policy has drawn them; the
    # cascade, as the target policy would.
    before = target if estimator.name == "slate_cascade" else logging
    truth = target @ (np.arange(3) / 2)
    truth += sum(before[a] * target[b] / (1.0 - target[a]) * b / 2 for a in range(3) for b in range(3) if b != a)
    assert abs(terms.mean() - truth) < 4 * terms.std() / np.sqrt(n)
