"""Every compiled core equals its twin in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engine.exploration import cap, capped_igw, fastcb, floor, greedy, igw, lints, linucb, softmax, spanner, summation
from tests.engine.exploration import reference

Float64 = NDArray[np.float64]

#: With ties: multiples of 1/16.
ties = st.lists(st.integers(-16, 32), min_size=1, max_size=12).map(lambda numbers: np.array(numbers) / 16.0)
scores_of_any_kind = st.one_of(ties, st.lists(st.floats(-1.0, 2.0), min_size=1, max_size=40).map(np.array))
gammas = st.one_of(st.just(0.0), st.floats(1e-3, 1e6))


def assert_same(compiled: Float64, twin: Float64) -> None:
    assert_allclose(compiled, twin, rtol=0.0, atol=1e-12)


@settings(max_examples=200)
@given(scores=scores_of_any_kind, epsilon=st.floats(0.0, 1.0), gamma=gammas, ceiling=st.floats(-1.0, 2.0))
def test_those_that_go_through_once(scores: Float64, epsilon: float, gamma: float, ceiling: float) -> None:
    assert_same(greedy.greedy(scores, epsilon), reference.greedy(scores, epsilon))
    assert_same(softmax.softmax(scores, gamma), reference.softmax(scores, gamma))
    assert_same(igw.inverse_gaps(scores, len(scores), gamma), reference.inverse_gaps(scores, len(scores), gamma))
    for least in (0.0, 1e-6, 0.1):
        compiled = fastcb.fast_inverse_gaps(scores, ceiling, gamma, least)
        if gamma > 0.0 or least > 0.0:
            assert_same(compiled, reference.fast_inverse_gaps(scores, ceiling, gamma, least))
    p = reference.softmax(scores, 3.0)
    assert_same(floor.mix(p, epsilon), reference.mix(p, epsilon))


@settings(max_examples=100)
@given(scores=scores_of_any_kind, gamma=gammas, tau=st.floats(1.0, 20.0), share=st.floats(0.0, 1.0))
def test_those_that_solve_an_equation(scores: Float64, gamma: float, tau: float, share: float) -> None:
    assert_same(igw.normalised_inverse_gaps(scores, 1.0, gamma), reference.normalised_inverse_gaps(scores, gamma))
    if gamma > 0.0:
        gaps = scores.max() - scores
        compiled = capped_igw.capped_inverse_gaps(gaps, np.sort(gaps), tau, gamma)
        # The twin looks for beta itself, and where gamma is great its last digit is worth more than 1e-12.
        assert_allclose(
            compiled, reference.capped_inverse_gaps(scores, tau, gamma), rtol=0.0, atol=1e-15 * gamma + 1e-12
        )
    p = reference.softmax(scores, 3.0)
    assert_same(floor.project(p, share, True), reference.project(p, share))
    assert_same(cap.cap(p, max(share, 1e-3)), reference.cap(p, max(share, 1e-3)))


@settings(max_examples=60)
@given(
    mean=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).map(np.array),
    spread=st.lists(st.floats(0.02, 1.0), min_size=8, max_size=8).map(np.array),
    scale=st.floats(0.5, 2.0),
)
def test_the_probability_of_the_best(mean: Float64, spread: Float64, scale: float) -> None:
    std = spread[: len(mean)]
    compiled = lints.probabilities_of_the_best(mean, std, scale)
    assert_same(compiled, reference.probabilities_of_the_best(mean, scale * std))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300), width=st.integers(1, 6))
def test_those_beside_the_vectors(seed: int, count: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    scores, std = rng.normal(size=count) * 10.0 ** rng.integers(-9, 9, count), rng.random(count)
    assert_same(linucb.upper_bounds(scores, std, 0.3), reference.upper_bounds(scores, std, 0.3))
    assert abs(summation.precise_sum(std) - reference.precise_sum(std)) <= 1e-15 * count**0.5
    rows = rng.integers(-2, 3, size=(count, width)).astype(np.float32)
    weights = rng.random(count) + 0.1
    index = rng.integers(0, count, size=count // 2)
    squared = reference.squared_lengths(rows, weights)
    assert_allclose(spanner._squared_lengths(rows, weights), squared, rtol=1e-6)  # in float32 until they are weighted
    assert spanner._varying(rows).tolist() == reference.varying(rows).tolist()
    assert spanner._scaled(rows, weights, index).tobytes() == reference.scaled(rows, weights, index).tobytes()
    for size in (1, width, count):
        least = float(np.median(squared))
        assert spanner._taken(squared, least, 0.3, size).tolist() == reference.taken(squared, least, 0.3, size)


@pytest.mark.parametrize(
    "core",
    [
        lambda scores: greedy.greedy(scores, 0.1),
        lambda scores: softmax.softmax(scores, 5.0),
        lambda scores: igw.inverse_gaps(scores, len(scores), 50.0),
        lambda scores: igw.normalised_inverse_gaps(scores, 1.0, 50.0),
        lambda scores: fastcb.fast_inverse_gaps(scores, 1.0, 50.0, 1e-6),
    ],
)
def test_very_many_actions_lose_nothing_in_the_sum(core: Callable[[Float64], Float64]) -> None:
    scores = np.random.default_rng(1).random(200_000)
    assert abs(core(scores).sum() - 1.0) < 1e-12
