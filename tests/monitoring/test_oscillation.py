from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from monitoring.oscillation import EVERY, LEAST, judge, level_at

Float64 = NDArray[np.float64]
SEEDS = 200
G = 12


def still(kind: str, rng: np.random.Generator) -> tuple[Float64, Float64, Float64 | None]:
    """Return rewards, their errors and policy distances of generations that do not oscillate."""
    error = np.full(G, 0.003)
    reward = 0.85 + 0.005 * rng.normal(size=G)
    distance = None
    match kind:
        case "gets better":
            reward += 0.03 * (1.0 - np.exp(-np.arange(G) / 3.0))
        case "wanders":
            walk = np.zeros(G)
            for g in range(1, G):
                walk[g] = 0.8 * walk[g - 1] + 0.005 * rng.normal()
            reward = 0.85 + walk
        case "some are known badly":
            error = rng.choice([0.001, 0.02], size=G)
            reward = 0.85 + error * rng.normal(size=G)
        case "policies wander":
            places = np.cumsum(0.3 * rng.normal(size=(G, 5)), axis=0) + rng.normal(size=(G, 5))
            distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    return reward, error, distance


@pytest.mark.parametrize("kind", ["same", "gets better", "wanders", "some are known badly", "policies wander"])
def test_what_does_not_oscillate_is_declared_no_more_often_than_stated(kind: str) -> None:
    rng = np.random.default_rng(5)
    declared = sum(judge(*still(kind, rng), level=0.05, seed=seed).declared for seed in range(SEEDS))
    assert declared <= binom.ppf(0.99, SEEDS, 0.05)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_rewards_that_return_are_declared_with_their_period(period: int) -> None:
    rng = np.random.default_rng(period)
    shape = 0.03 * np.cos(2.0 * np.pi * np.arange(20) / period)
    found = judge(0.85 + shape + 0.004 * rng.normal(size=20), np.full(20, 0.003), level=0.01)
    assert found.declared
    assert found.period == period
    assert found.p_reward <= 0.01
    assert found.amplitude == pytest.approx(np.ptp(shape), abs=4.0 * found.amplitude_error)


def test_policies_that_return_are_declared_where_rewards_tell_nothing() -> None:
    rng = np.random.default_rng(1)
    places = np.arange(15)[:, None] % 2 + 0.3 * rng.normal(size=(15, 4))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    found = judge(0.85 + 0.003 * rng.normal(size=15), np.full(15, 0.003), distance, level=0.01)
    assert (found.declared, found.period) == (True, 2)
    assert found.p_return <= 0.01 < found.p_reward


def test_an_alternation_within_the_errors_of_few_known_rewards_is_none() -> None:
    """The one generation that swings is hardly known at all."""
    rng = np.random.default_rng(2)
    error = np.full(12, 0.002)
    error[5] = 0.2
    reward = 0.85 + 0.002 * rng.normal(size=12)
    reward[5] += 0.2
    assert judge(reward, error).p_value > 0.05


def test_the_levels_of_all_looks_add_up_to_the_level() -> None:
    levels = [level_at(n, 0.05) for n in range(10_000)]
    assert sum(levels) == pytest.approx(0.05, rel=1e-3)
    assert sum(levels) <= 0.05
    assert [n for n, level in enumerate(levels[:20]) if level] == [LEAST, LEAST + EVERY, LEAST + 2 * EVERY, 18]


def test_too_few_generations_are_not_judged_and_missing_rewards_are_refused() -> None:
    assert judge(np.arange(8.0), np.ones(8)).p_value == 1.0
    with pytest.raises(ValueError, match="leave out generations without feedback"):
        judge(np.full(12, np.nan), np.ones(12))
