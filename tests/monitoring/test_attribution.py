from __future__ import annotations

import math

import numpy as np

from monitoring.attribution import attribute


def test_what_moved_with_the_reward_is_named_with_its_sign() -> None:
    rng = np.random.default_rng(0)
    reward = 0.85 + 0.01 * rng.normal(size=20)
    drivers = {
        "calibration": 0.05 - reward + 0.85 + 0.002 * rng.normal(size=20),
        "support": rng.normal(size=20),
        "gamma": np.full(20, 100.0),
        "reward_shift": np.full(20, np.nan),
    }
    found = {each.name: each for each in attribute(reward, drivers)}
    assert set(found) == {"calibration", "support", "gamma"}  # of what is not known nothing is said
    assert found["calibration"].moved
    assert found["calibration"].high < -0.7
    assert not found["support"].moved
    assert found["support"].low < 0.0 < found["support"].high
    assert math.isnan(found["gamma"].correlation)


def test_things_that_only_alternate_are_worth_few_generations() -> None:
    """Any two series of period 2 go together: the interval says that there is next to no evidence."""
    rng = np.random.default_rng(1)
    swing = (-1.0) ** np.arange(20)
    [found] = attribute(swing + 0.05 * rng.normal(size=20), {"other": swing + 0.05 * rng.normal(size=20)})
    assert found.correlation > 0.95
    assert found.generations < 4.0
    assert found.low < 0.0


def test_unrelated_things_are_named_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(2)
    named = 0
    for seed in range(100):
        drivers = {name: rng.normal(size=12) for name in "abcde"}
        named += any(each.moved for each in attribute(rng.normal(size=12), drivers, seed=seed))
    assert named <= 11  # 99 % point of the binomial with 100 and 0.05


def test_few_generations_say_nothing() -> None:
    assert attribute(np.arange(5.0), {"a": np.arange(5.0)}) == []
