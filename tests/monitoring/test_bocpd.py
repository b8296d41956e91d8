from __future__ import annotations

import numpy as np
import pytest

from monitoring.bocpd import BOCPD


def posterior(xs: list[int], hazard: float, k: int) -> list[float]:
    """Chances of each start by enumeration of all segmentations: P(cuts) times Laplace's marginals."""
    n = len(xs)
    joint = np.zeros(n + 1)
    for cuts in range(2**n):
        starts = [0, *(i + 1 for i in range(n) if cuts >> i & 1)]
        chance = hazard ** (len(starts) - 1) * (1 - hazard) ** (n - len(starts) + 1)
        for a, b in zip(starts, [*starts[1:], n], strict=True):
            counts = [1] * k
            for x in xs[a:b]:
                chance *= counts[x] / sum(counts)
                counts[x] += 1
        joint[starts[-1]] += chance
    result: list[float] = (joint / joint.sum()).tolist()
    return result


@pytest.mark.parametrize("k", [2, 3])
def test_posterior_is_that_of_all_segmentations(k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(5):
        xs = rng.integers(0, k, 9).tolist()
        detector = BOCPD(0.02, k)
        assert detector.update_many(xs) == []
        assert list(detector.starts) == list(range(10))
        assert detector.posterior.tolist() == pytest.approx(posterior(xs, 0.02, k), abs=1e-12)


def test_bounded_runs_still_find_a_change() -> None:
    rng = np.random.default_rng(0)
    xs = np.r_[rng.random(2_000) < 0.2, rng.random(200) < 0.8].astype(int)
    detector = BOCPD(max_runs=64)
    change = next(c for c in detector.update_many(xs) if c.detected >= 2_000)
    assert abs(change.index - 2_000) <= 5
    assert detector.forecasters <= 64


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: BOCPD(0.5), "hazard"),
        (lambda: BOCPD(categories=1), "categories"),
        (lambda: BOCPD(max_runs=2), "max_runs"),
    ],
)
def test_impossible_parameters_are_named(make: object, named: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=named):
        make()
