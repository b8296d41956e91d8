"""Extended value iteration against every policy of every extreme process, written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.sequential import extended_value_iteration, optimal_gain

Float64 = NDArray[np.float64]


def process(seed: int, states: int, actions: int) -> tuple[Float64, Float64]:
    rng = np.random.default_rng(seed)
    p = 0.9 * rng.dirichlet(np.full(states, 0.5), (states, actions)) + 0.1 / states
    return rng.uniform(size=(states, actions)), p


def gain_of(r: Float64, P: Float64) -> float:
    """Return the reward per step of a chain that reaches all of its states."""
    n = len(r)
    stationary = np.linalg.lstsq(np.vstack([P.T - np.eye(n), np.ones(n)]), np.eye(n + 1)[n], rcond=None)[0]
    return float(stationary @ r)


def extremes(p: Float64, radius: float) -> list[Float64]:
    """Return all distributions within ``radius`` of p that can be the best for some values of the states."""
    found = []
    for order in itertools.permutations(range(len(p))):
        moved = p.copy()
        moved[order[0]] = min(1.0, p[order[0]] + radius / 2.0)
        for worst in reversed(order):
            moved[worst] = max(0.0, moved[worst] - max(0.0, moved.sum() - 1.0))
        found.append(moved)
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), actions=st.integers(1, 4))
def test_the_gain_of_a_known_process_is_that_of_its_best_policy(seed: int, actions: int) -> None:
    r, p = process(seed, 3, actions)
    rows = np.arange(3)
    every = [gain_of(r[rows, pi], p[rows, pi]) for pi in map(list, itertools.product(range(actions), repeat=3))]
    assert optimal_gain(r, p) == pytest.approx(max(every), abs=1e-7)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([0.05, 0.4, 1.5]))
def test_the_optimistic_gain_is_that_of_the_best_policy_of_the_best_plausible_process(seed: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    r, p = process(seed, 3, 2)
    d_r, d_p = rng.uniform(0.0, 0.3, (3, 2)), rng.uniform(0.5, 1.0, (3, 2)) * width
    choices = [
        [(min(1.0, r[o, a] + d_r[o, a]), q) for a in range(2) for q in extremes(p[o, a], d_p[o, a])] for o in range(3)
    ]
    best = max(
        gain_of(np.array([reward for reward, _ in policy]), np.array([q for _, q in policy]))
        for policy in itertools.product(*choices)
    )
    plan = extended_value_iteration(r, p, d_r, d_p, 1e-8)
    assert plan.gain == pytest.approx(best, abs=1e-6)
    assert plan.accuracy < 1e-8


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.floats(0.0, 2.0))
def test_no_distribution_within_the_radius_is_better_than_the_greedy_one(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    p, u = rng.dirichlet(np.ones(4)), rng.normal(size=4)
    greedy = max(float(q @ u) for q in extremes(p, radius))
    others = rng.dirichlet(np.full(4, 0.3), 200)
    toward = np.minimum(1.0, radius / np.maximum(1e-12, np.abs(others - p).sum(axis=1)))
    assert ((p + toward[:, None] * (others - p)) @ u <= greedy + 1e-12).all()


def test_a_process_that_returns_at_even_times_alone_is_planned_for() -> None:
    p = np.zeros((2, 1, 2))
    p[0, 0, 1] = p[1, 0, 0] = 1.0
    assert optimal_gain(np.array([[1.0], [0.0]]), p) == pytest.approx(0.5, abs=1e-7)


def test_an_action_that_a_state_lacks_is_never_planned() -> None:
    r, p = np.array([[0.1, 1.0], [0.2, 1.0]]), process(0, 2, 2)[1]
    allowed = np.array([[True, False], [True, True]])
    plan = extended_value_iteration(r, p, np.ones((2, 2)), np.ones((2, 2)), 1e-3, allowed)
    assert plan.policy[0] == 0
    assert np.isneginf(plan.q[0, 1])


def test_more_doubt_is_more_hope() -> None:
    r, p = process(3, 4, 3)
    gains = [
        extended_value_iteration(r, p, np.full((4, 3), w), np.full((4, 3), w), 1e-8).gain for w in (0, 0.1, 0.3, 3)
    ]
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(1.0, abs=1e-7)
