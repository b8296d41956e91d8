from __future__ import annotations

import math

import numpy as np

from monitoring.confidence_sequence import radius


def test_the_mean_is_ever_outside_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    n = 3_000
    reach = np.array([radius(count, 0.1, 1.0) for count in range(1, n + 1)])
    means = np.cumsum(rng.random((300, n)) < 0.5, axis=1) / np.arange(1, n + 1)
    outside = (np.abs(means - 0.5) > reach).any(axis=1).sum()
    assert outside <= 42  # 99 % point of the binomial with 300 and 0.1
    assert outside > 0  # and it is not infinitely wide


def test_it_narrows_and_scales_with_the_range() -> None:
    assert radius(0, 0.05, 1.0) == math.inf
    assert radius(10_000, 0.05, 1.0) < radius(1_000, 0.05, 1.0) < radius(1_000, 0.01, 1.0)
    assert radius(1_000, 0.05, 5.0) == 5.0 * radius(1_000, 0.05, 1.0)
