"""What every interval owes, whichever it is. A new one is found by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import training.evaluation
from training.evaluation import INTERVALS, IntervalMethod, Support

every_interval = pytest.mark.parametrize("method", INTERVALS.values(), ids=INTERVALS)
UNIT = Support(0.0, 1.0, 0.0, 1.0)
SEEDS = 200


@st.composite
def unit_values(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values: np.ndarray = rng.beta(draw(st.floats(0.1, 3.0)), draw(st.floats(0.1, 3.0)), size=draw(st.integers(2, 60)))
    return values


def test_every_interval_of_the_package_is_registered_under_its_name() -> None:
    found = set()
    for module in pkgutil.iter_modules(training.evaluation.__path__, "training.evaluation."):
        for value in vars(importlib.import_module(module.name)).values():
            is_one = isinstance(value, type) and hasattr(value, "interval") and hasattr(value, "anytime")
            if is_one and not getattr(value, "_is_protocol", False) and not inspect.isabstract(value):
                found.add(value)
    assert found == {type(method) for method in INTERVALS.values()}
    assert all(method.name == name for name, method in INTERVALS.items())


@every_interval
@given(values=unit_values(), shift=st.floats(-5.0, 5.0), scale=st.floats(0.01, 50.0))
def test_another_unit_and_another_zero_move_the_bounds_with_them(
    method: IntervalMethod, values: np.ndarray, shift: float, scale: float
) -> None:
    plain = method.interval(values, 0.975, UNIT)
    low, high = shift, shift + scale
    moved = method.interval(shift + scale * values, 0.975, Support(low, high, low, high))
    for one, other in ((plain.value, moved.value), (plain.low, moved.low), (plain.high, moved.high)):
        assert other == pytest.approx(shift + scale * one, rel=1e-6, abs=1e-6 * scale)


@every_interval
@given(values=unit_values())
def test_changed_signs_change_the_sides(method: IntervalMethod, values: np.ndarray) -> None:
    plain, mirrored = method.interval(values, 0.9, UNIT), method.interval(-values, 0.9, UNIT.mirrored)
    if method.name != "bootstrap":  # whose resampled quantiles lie between the same values, counted from the other end
        assert (mirrored.low, mirrored.high) == pytest.approx((-plain.high, -plain.low), abs=1e-9)
    assert mirrored.value == pytest.approx(-plain.value)


@every_interval
@given(values=unit_values())
def test_greater_confidence_makes_no_narrower_interval(method: IntervalMethod, values: np.ndarray) -> None:
    narrow, wide = method.interval(values, 0.8, UNIT), method.interval(values, 0.99, UNIT)
    if method.name in ("betting", "predictable_plug_in"):
        return  # what is bet depends on the confidence, and no order is promised
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12


@every_interval
@pytest.mark.parametrize("confidence", [0.5, 1.0, 95.0])
def test_a_confidence_that_is_none_is_refused(method: IntervalMethod, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        method.interval(np.array([0.0, 1.0]), confidence, UNIT)


@every_interval
def test_the_truth_is_inside_as_often_as_is_said(method: IntervalMethod) -> None:
    """Values as weighted rewards are: mostly 0, some great."""
    outside = [0, 0]
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = rng.exponential(0.2, size=400).clip(max=1.0) * (rng.random(400) < 0.4)
        truth = 0.4 * 0.2 * (1.0 - np.exp(-5.0))
        found = method.interval(values, 0.975, UNIT)
        outside[0] += truth < found.low
        outside[1] += truth > found.high
    # 2.5 % of 200 is 5 on each side; 99.9 % of binomial counts lie below 14.
    assert max(outside) <= 13


@every_interval
def test_a_range_that_is_not_known_gives_no_bound_that_needs_it(method: IntervalMethod) -> None:
    values = np.random.default_rng(1).random(200)
    found = method.interval(values, 0.975, Support())
    if method.name in ("student", "bootstrap"):
        assert 0.4 < found.low < found.value < found.high < 0.6
    else:
        assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("name", [name for name, method in INTERVALS.items() if method.anytime])
def test_a_sequence_bounds_from_below_however_great_the_greatest_may_be(name: str) -> None:
    values = np.random.default_rng(1).random(2_000)
    found = INTERVALS[name].interval(values, 0.975, Support(0.0, np.inf, 0.0, 1.0))
    assert 0.4 < found.low < 0.5
    assert found.high == 1.0
