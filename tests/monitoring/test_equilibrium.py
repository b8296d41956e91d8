from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.equilibrium import LEAST, Course, fit


def series(seed: int, steps: int, phi: float, level: float = 0.2, noise: float = 0.01) -> NDArray[np.float64]:
    """Return a stationary autoregression around a level."""
    rng = np.random.default_rng(seed)
    x = np.empty(steps)
    x[0] = level + noise / math.sqrt(1 - phi * phi) * rng.standard_normal()
    for step in range(1, steps):
        x[step] = level + phi * (x[step - 1] - level) + noise * rng.standard_normal()
    return x


@pytest.mark.parametrize(("phi", "least"), [(0.0, 0.90), (0.5, 0.90), (0.8, 0.85)])
def test_the_interval_of_the_level_covers_it(phi: float, least: float) -> None:
    """Of 400 series of 96 values; the interval is meant for 95 %, and is short where the force is weak."""
    inside = 0
    for seed in range(400):
        found = fit(series(seed, 96, phi))
        inside += found.low <= 0.2 <= found.high
    assert least <= inside / 400 <= 0.99


def test_the_rate_is_that_of_the_process() -> None:
    rates = [fit(series(seed, 96, 0.6)).rate for seed in range(200)]
    assert np.median(rates) == pytest.approx(-math.log(0.6), rel=0.1)
    found = fit(series(1, 96, 0.6))
    assert found.half_life == pytest.approx(math.log(2) / found.rate)


def test_noise_is_stable_and_what_runs_away_is_told_from_it() -> None:
    stable = [fit(series(seed, 96, 0.3)).course for seed in range(200)]
    assert stable.count(Course.STABLE) >= 195
    rng = np.random.default_rng(0)
    rising = [fit(0.1 + 0.004 * np.arange(96) + 0.01 * rng.standard_normal(96)).course for _ in range(200)]
    walks = [fit(0.3 + 0.01 * rng.standard_normal(96).cumsum()).course for _ in range(200)]
    assert rising.count(Course.RUNAWAY) >= 190
    assert walks.count(Course.STABLE) <= 35  # the test is one of 10 %


def test_a_short_series_says_nothing_and_a_constant_one_is_at_rest() -> None:
    short = fit([0.1] * (LEAST - 1))
    assert short.course is Course.UNKNOWN
    assert math.isnan(short.level)
    rest = fit([0.25] * LEAST)
    assert (rest.course, rest.level, rest.low, rest.high) == (Course.STABLE, 0.25, 0.25, 0.25)


def test_level_and_interval_stay_within_bounds() -> None:
    found = fit(np.abs(series(3, 40, 0.9, level=0.02, noise=0.02)).clip(0, 1))
    assert 0.0 <= found.low <= found.level <= found.high <= 1.0
