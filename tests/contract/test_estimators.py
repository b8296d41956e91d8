"""What every estimator owes, whichever it is. A new one is found by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import training.evaluation
from tests.training.arrays import Bandit
from training.evaluation import ESTIMATORS, SLATE_ESTIMATORS, Estimator, LoggedRows, difference, estimate

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


@st.composite
def logged_rows(draw: st.DrawFn) -> LoggedRows:
    """Draw ragged rows: any logged vectors with full support, any target vectors, any rewards and model."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    starts = np.concatenate([[0], np.cumsum(counts)])
    target = [rng.dirichlet(np.full(count, 0.5)) for count in counts]
    logged = [0.9 * rng.dirichlet(np.ones(count)) + 0.1 / count for count in counts]
    return LoggedRows(
        starts=starts,
        chosen=starts[:-1] + [rng.integers(count) for count in counts],
        reward=rng.normal(scale=draw(st.sampled_from([0.0, 1.0, 100.0])), size=len(counts)),
        logged=np.concatenate(logged),
        target=np.concatenate(target),
        q_hat=rng.normal(size=sum(counts)),
    )


def in_order(rows: LoggedRows, order: np.ndarray) -> LoggedRows:
    """Return the rows in another order."""
    flat = np.concatenate([np.arange(rows.starts[i], rows.starts[i + 1]) for i in order])
    starts = np.concatenate([[0], np.cumsum(np.diff(rows.starts)[order])])
    assert rows.q_hat is not None
    return LoggedRows(
        starts,
        starts[:-1] + (rows.chosen - rows.starts[:-1])[order],
        rows.reward[order],
        rows.logged[flat],
        rows.target[flat],
        rows.q_hat[flat],
    )


def test_every_estimator_of_the_package_is_registered_under_its_name() -> None:
    found = set()
    for module in pkgutil.iter_modules(training.evaluation.__path__, "training.evaluation."):
        for value in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(value, type)
                and hasattr(value, "contributions")
                and not getattr(value, "_is_protocol", False)
                and not inspect.isabstract(value)
            ):
                found.add(value)
    assert found == {type(estimator) for estimator in (*ESTIMATORS.values(), *SLATE_ESTIMATORS.values())}
    assert all(estimator.name == name for name, estimator in ESTIMATORS.items())
    assert all(estimator.name == name for name, estimator in SLATE_ESTIMATORS.items())


@every_estimator
@given(rows=logged_rows())
def test_one_finite_term_a_row_whose_mean_is_the_estimate(estimator: Estimator, rows: LoggedRows) -> None:
    terms = estimator.contributions(rows)
    assert terms.shape == (len(rows),)
    assert np.isfinite(terms).all()
    found = estimate(estimator, rows)
    assert found.value == pytest.approx(terms.mean())
    assert found.low <= found.value <= found.high
    assert found.n == len(rows)


@every_estimator
@given(rows=logged_rows(), seed=st.integers(0, 1_000))
def test_the_order_of_rows_does_not_matter(estimator: Estimator, rows: LoggedRows, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    assert_allclose(
        estimator.contributions(in_order(rows, order)), estimator.contributions(rows)[order], rtol=1e-9, atol=1e-9
    )


@every_estimator
@given(rows=logged_rows(), factor=st.floats(0.01, 100.0))
def test_another_unit_of_reward_is_another_unit_of_the_estimate(
    estimator: Estimator, rows: LoggedRows, factor: float
) -> None:
    scaled = replace(rows, reward=rows.reward * factor, q_hat=rows.model * factor)
    assert_allclose(
        estimator.contributions(scaled), estimator.contributions(rows) * factor, rtol=1e-9, atol=1e-9 * factor
    )


@every_estimator
@given(rows=logged_rows())
def test_a_policy_is_no_better_than_itself(estimator: Estimator, rows: LoggedRows) -> None:
    found = difference(estimator, rows, rows, confidence=0.95)
    assert found.value == 0.0
    if len(rows) > 1:
        assert found.low == found.high == 0.0


@every_estimator
@given(rows=logged_rows())
def test_greater_confidence_makes_a_wider_interval(estimator: Estimator, rows: LoggedRows) -> None:
    narrow, wide = estimate(estimator, rows, 0.8), estimate(estimator, rows, 0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@every_estimator
@given(rows=logged_rows())
def test_a_reward_model_is_asked_for_only_where_it_is_said(estimator: Estimator, rows: LoggedRows) -> None:
    without = replace(rows, q_hat=None)
    if estimator.needs_reward_model:
        with pytest.raises(ValueError, match="q_hat"):
            estimator.contributions(without)
    else:
        assert_allclose(estimator.contributions(without), estimator.contributions(rows))


@every_estimator
def test_the_truth_is_found_on_a_large_sample_with_a_true_model(estimator: Estimator) -> None:
    bandit = Bandit(model_error=0.0)
    found = estimate(estimator, bandit.sample(50_000, seed=5))
    # The truth itself is a mean over 400,000 contexts with a standard error of about 0.0005.
    assert abs(found.value - bandit.truth) < 4 * found.standard_error + 0.002
    assert found.standard_error < 0.02
