from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engine.exploration import SpannerIGW
from engine.exploration.candidates import Top, TopAndSpanner
from engine.exploration.spanner import spanner
from engine.prediction import Prediction

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


def assert_spans(rows: Float32, weights: Float64, chosen: NDArray[np.int64]) -> None:
    """Hold it to its definition: independent, and every row a combination with coefficients of at most 2."""
    scaled = weights[:, None] * rows.astype(np.float64)
    scaled = scaled[:, (rows != rows[0]).any(axis=0)]
    basis = scaled[chosen]
    assert np.linalg.matrix_rank(basis, tol=1e-6 * np.abs(scaled).max()) == len(chosen)
    coefficients = np.linalg.lstsq(basis.T, scaled.T, rcond=None)[0]
    lengths = np.linalg.norm(scaled, axis=1)
    assert_allclose(basis.T @ coefficients, scaled.T, rtol=0.0, atol=1e-4 * lengths.max())
    assert np.abs(coefficients).max() <= 2.0 * (1.0 + 1e-4)


@pytest.mark.parametrize(("n", "width"), [(5, 5), (50, 3), (2_000, 16), (20_000, 32), (10, 40)])
@pytest.mark.parametrize("gamma", [0.0, 1_000.0])
@pytest.mark.parametrize("spectrum", ["round", "flat"])
def test_it_is_a_spanner(n: int, width: int, gamma: float, spectrum: str) -> None:
    rng = np.random.default_rng(n + width)
    rows = rng.normal(size=(n, width)).astype(np.float32)
    if spectrum == "flat":  # as embeddings are: some directions matter a hundred times as much as others
        rows *= (0.01 ** (np.arange(width) / width)).astype(np.float32)
    weights = 1.0 / np.sqrt(1.0 + width + gamma * rng.random(n))
    chosen = spanner(rows, weights)
    assert len(chosen) == min(n, width)
    assert (np.diff(chosen) > 0).all()
    assert_spans(rows, weights, chosen)


@settings(max_examples=150)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-3, 3), min_size=width, max_size=width), min_size=2, max_size=60
        ).map(lambda numbers: np.array(numbers, dtype=np.float32))
    )
)
def test_rows_that_repeat_or_lie_in_a_plane(rows: Float32) -> None:
    weights = np.ones(len(rows))
    chosen = spanner(rows, weights)
    varying = rows[:, (rows != rows[0]).any(axis=0)]
    assert len(chosen) == (np.linalg.matrix_rank(varying) if varying.size else 0)
    if len(chosen):
        assert_spans(rows, weights, chosen)


def test_a_short_row_in_a_direction_of_its_own_is_found_among_many_long_ones() -> None:
    rng = np.random.default_rng(2)
    rows = np.zeros((5_000, 3), dtype=np.float32)
    rows[:, :2] = rng.normal(size=(5_000, 2)) + 10.0
    rows[4_321] = [0.0, 0.0, 0.1]
    assert 4_321 in spanner(rows, np.ones(5_000))


def test_the_bound_holds_for_a_row_that_stands_out_in_a_thin_direction() -> None:
    # Neither among the longest nor, for most of the places, in the sample: only a look at all rows finds it.
    rng = np.random.default_rng(8)
    weights = np.ones(5_000)
    for place in (17, 2_345, 4_999):
        rows = (rng.normal(size=(5_000, 4)) * 10.0).astype(np.float32)
        rows[:, 3] = rng.uniform(-0.01, 0.01, size=5_000)
        rows[place] = [0.0, 0.0, 0.0, 0.04]
        assert_spans(rows, weights, spanner(rows, weights))


def test_columns_of_the_context_change_nothing() -> None:
    rng = np.random.default_rng(3)
    actions = rng.normal(size=(300, 5)).astype(np.float32)
    context = np.tile(rng.normal(size=7).astype(np.float32), (300, 1))
    weights = np.ones(300)
    assert spanner(np.hstack([context, actions]), weights).tolist() == spanner(actions, weights).tolist()


def test_rows_that_are_all_the_same_span_nothing() -> None:
    assert spanner(np.ones((4, 3), dtype=np.float32), np.ones(4)).tolist() == []
    prediction = Prediction(np.array([0.1, 0.9, 0.2]), rows=np.ones((3, 2), dtype=np.float32))
    assert SpannerIGW().pmf(prediction, 10).tolist() == [0.0, 1.0, 0.0]


def test_spanner_igw_explores_the_spanner_by_its_gaps_and_nothing_else() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(1_000, 6)).astype(np.float32)
    scores = rng.random(1_000)
    p = SpannerIGW(gamma_scale=50.0, gamma_exponent=0.0).pmf(Prediction(scores, rows=rows), 1)
    gaps = scores.max() - scores
    chosen = spanner(rows, 1.0 / np.sqrt(7.0 + 50.0 * gaps))
    assert len(chosen) == 6
    best = int(scores.argmax())
    others = [i for i in chosen if i != best]
    assert_allclose(p[others], 1.0 / (7.0 + 50.0 * gaps[others]), rtol=1e-12)
    assert_allclose(p[best], 1.0 - p[others].sum(), rtol=1e-12)
    assert set(np.flatnonzero(p)) == {best, *others}


def test_candidates_are_the_best_and_a_spanner_of_all() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(500, 4)).astype(np.float32)
    scores = rng.random(500)
    prediction = Prediction(scores, rows=rows)
    best = set(np.argsort(-scores)[:10].tolist())
    assert set(Top(10).select(prediction).tolist()) == best
    chosen = TopAndSpanner(10).select(prediction).tolist()
    assert set(chosen) == best | set(spanner(rows, np.ones(500)).tolist())
    assert Top(1_000).select(prediction).tolist() == list(range(500))
