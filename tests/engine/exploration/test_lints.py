from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engine.exploration import LinTS
from engine.prediction import Prediction
from tests.engine.exploration.reference import probabilities_of_the_best

Float64 = NDArray[np.float64]


def lints(mean: list[float] | Float64, std: list[float] | Float64, scale: float = 1.0) -> Float64:
    return LinTS(scale).pmf(Prediction(np.array(mean), std=np.array(std)), 1)


@given(
    gap=st.floats(-3.0, 3.0),
    one=st.floats(-6.0, 2.0).map(lambda x: 10.0**x),
    other=st.floats(-6.0, 2.0).map(lambda x: 10.0**x),
)
def test_two_actions_have_a_closed_form_whatever_their_scales(gap: float, one: float, other: float) -> None:
    expected = 0.5 * math.erfc(-gap / math.hypot(one, other) / math.sqrt(2.0))
    assert_allclose(lints([gap, 0.0], [one, other]), [expected, 1.0 - expected], rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("count", [3, 100, 2_000, 10_000])
def test_equal_actions_are_equally_likely(count: int) -> None:
    assert_allclose(lints([0.3] * count, [0.1] * count), np.full(count, 1.0 / count), rtol=1e-10)


def test_frequencies_of_thompson_sampling_are_the_probabilities() -> None:
    rng = np.random.default_rng(3)
    mean, std = rng.normal(size=6) * 0.2, rng.uniform(0.01, 0.5, size=6)
    n = 400_000
    counts = np.bincount((mean + std * rng.normal(size=(n, 6))).argmax(axis=1), minlength=6)
    p = lints(mean, std)
    chi_square = float(((counts - n * p) ** 2 / (n * p)).sum())
    assert chi_square < 20.52, "exceeded by 1 in 1000 with five degrees of freedom"


def test_hundreds_of_actions_to_ten_digits() -> None:
    rng = np.random.default_rng(5)
    mean, std = rng.normal(size=200) * 0.3, rng.uniform(0.1, 1.0, size=200)
    assert_allclose(lints(mean, std), probabilities_of_the_best(mean, std), rtol=0.0, atol=1e-10)


def test_certain_values_among_uncertain_ones() -> None:
    # The second has to pass 0.5, which the first is for certain and the third is never above.
    above = 0.5 * math.erfc(1.0 / math.sqrt(2.0))
    assert_allclose(lints([0.5, 0.4, 0.2], [0.0, 0.1, 0.0]), [1.0 - above, above, 0.0], rtol=0.0, atol=1e-12)
    assert lints([0.5, 0.5, 0.2], [0.0, 0.0, 0.0]).tolist() == [0.5, 0.5, 0.0]
    assert lints([0.5, 0.2], [0.1, 0.3], scale=0.0).tolist() == [1.0, 0.0]


def test_a_nearly_certain_value_is_nearly_that() -> None:
    certain = lints([0.5, 0.4, 0.45], [0.0, 0.1, 0.2])
    assert_allclose(lints([0.5, 0.4, 0.45], [1e-9, 0.1, 0.2]), certain, rtol=0.0, atol=1e-8)
    assert_allclose(lints([0.5, 0.4, 0.45], [1e-300, 0.1, 0.2]), certain, rtol=0.0, atol=1e-10)


def test_more_uncertainty_of_an_action_that_lags_gives_it_more() -> None:
    shares = [lints([0.5, 0.3], [0.05, std])[1] for std in (0.01, 0.1, 0.5, 2.0)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.4
