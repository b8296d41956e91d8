"""What every estimator of lists owes, whichever it is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from engine.config import SlateConfig
from engine.prediction import Prediction
from engine.recommender.drawing import Drawing
from training.evaluation import SLATE_ESTIMATORS, LoggedSlates, SlateEstimator

every_estimator = pytest.mark.parametrize("estimator", SLATE_ESTIMATORS.values(), ids=SLATE_ESTIMATORS)


@st.composite
def logged_slates(draw: st.DrawFn) -> LoggedSlates:
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m = sum(counts)
    logged, target = rng.uniform(0.05, 1.0, m), rng.uniform(0.0, 1.0, m)
    return LoggedSlates(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rng.normal(size=m),
        logged,
        target,
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
    same = replace(lists, target=lists.logged, target_marginal=lists.logged_marginal)
    assert estimator.contributions(same).mean() == pytest.approx(lists.row_sums(lists.reward).mean())
    assert_allclose(estimator.weights(same), 1.0)


EPSILON = Drawing(
    SlateConfig.model_validate({"kind": "cascade", "exploration": {"kind": "epsilon_greedy", "epsilon": 0.6}})
)
SOFTMAX = Drawing(
    SlateConfig.model_validate({"kind": "plackett_luce", "exploration": {"kind": "softmax", "lambda_scale": 2.0}})
)


@every_estimator
@pytest.mark.parametrize("target", [EPSILON, SOFTMAX], ids=["cascade", "plackett_luce"])
@pytest.mark.parametrize("logging", [EPSILON, SOFTMAX], ids=["from cascade", "from plackett_luce"])
def test_the_reward_of_the_target_policy_is_found(estimator: SlateEstimator, logging: Drawing, target: Drawing) -> None:
    # Three slots from four items. What an item earns depends on it and its rank; truth is by enumeration.
    items, slots, n, rng = 4, 3, 40_000, np.random.default_rng(7)
    earns = rng.uniform(0.0, 1.0, (slots, items))
    seen = Prediction(np.array([0.4, 0.5, 0.3, 0.45]))
    wanted = Prediction(np.array([0.8, 0.2, 0.6, 0.1]))
    orders = list(itertools.permutations(range(items), slots))
    logged = np.array([logging.propensities(seen, 100, order) for order in orders])
    chances = np.array([target.propensities(wanted, 100, order) for order in orders])
    assert chances.prod(axis=1).sum() == pytest.approx(1.0)
    rewards = np.array([[earns[slot, item] for slot, item in enumerate(order)] for order in orders])
    truth = chances.prod(axis=1) @ rewards.sum(axis=1)

    drawn = rng.choice(len(orders), n, p=logged.prod(axis=1) / logged.prod(axis=1).sum())
    marginal = np.array([logging.marginals(seen, 100, order, 0) for order in orders])
    wanted_marginal = np.array([target.marginals(wanted, 100, order, 0) for order in orders])
    lists = LoggedSlates(
        np.arange(0, slots * n + 1, slots),
        rng.binomial(1, rewards[drawn].ravel()).astype(np.float64),
        *(part[drawn].ravel() for part in (logged, chances, marginal, wanted_marginal)),
    )
    terms = estimator.contributions(lists)
    error = terms.std() / np.sqrt(n)
    assert abs(terms.mean() - truth) < 4 * error
    behaved = lists.row_sums(lists.reward).mean()
    assert abs(behaved - truth) > 8 * error, "the policies differ by more than the estimate may miss"
