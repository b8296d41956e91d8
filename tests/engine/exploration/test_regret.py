"""Regret on problems that the oracle can learn, with fixed seeds. `python -m benchmarks.regret` has the intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._regret_world import exponent, linear_world, regret, small_loss_world
from engine.exploration import Exploration, Falcon, FastCB, SquareCB, Uniform

# Both with gamma = 10 sqrt(n).
EXPLORATIONS = [SquareCB(10.0), Falcon(constant=10.0, complexity=5.0)]


def exponents(exploration: Exploration, rounds: int, seeds: range) -> list[float]:
    return [exponent(regret(linear_world(rounds, seed), exploration), 500) for seed in seeds]


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda exploration: exploration.kind)
def test_regret_grows_like_a_root_of_the_rounds(exploration: Exploration) -> None:
    assert np.mean(exponents(exploration, 8_000, range(3))) < 0.7
    # What does not learn from its scores loses the same in every round.
    assert exponents(Uniform(), 2_000, range(1))[0] == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=lambda exploration: exploration.kind)
def test_regret_grows_no_faster_than_theory_says(exploration: Exploration) -> None:
    slopes = [exponent(regret(linear_world(100_000, seed), exploration), 1_000) for seed in range(5)]
    assert np.mean(slopes) <= 0.6


def test_fastcb_loses_less_than_squarecb_where_little_can_be_lost() -> None:
    def loss(exploration: Exploration) -> float:
        return float(np.mean([regret(small_loss_world(2_000, seed), exploration)[-1] for seed in range(3)]))

    # Each with the best of three scales.
    scales = (1.0, 10.0, 30.0)
    assert min(loss(FastCB(1.0, scale)) for scale in scales) < 0.7 * min(loss(SquareCB(scale)) for scale in scales)
