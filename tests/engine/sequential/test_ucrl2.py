from __future__ import annotations

import io
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.sequential import UCRL2
from engine.sequential.environments import SwitchingMDP, funnel, switching


def stationary(seed: int, states: int = 3, actions: int = 3) -> SwitchingMDP:
    rng = np.random.default_rng(seed)
    return switching(rng, n_states=states, n_actions=actions, horizon=10, n_segments=1)


def walk(learner: UCRL2, mdp: SwitchingMDP, steps: int, seed: int = 0) -> float:
    """Let a learner act from state 0; return its mean reward."""
    state, total = 0, 0
    for u, v in np.random.default_rng(seed).random((steps, 2)).tolist():
        action = learner.act(state)
        reward, following = mdp.step(0, state, action, u, v)
        learner.observe(state, action, reward, following)
        state, total = following, total + reward
    return total / max(1, steps)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_radii_are_those_of_the_paper_times_the_scale(scale: float) -> None:
    learner = UCRL2(3, 2, delta=0.1, width_scale=scale)
    for _ in range(16):
        learner.observe(1, 1, 1.0, 0)
    d_r, d_p = learner.radii()
    t = 17
    assert d_r[1, 1] == pytest.approx(scale * math.sqrt(7 * math.log(2 * 3 * 2 * t / 0.1) / 32))
    assert d_r[0, 0] == pytest.approx(scale * math.sqrt(7 * math.log(2 * 3 * 2 * t / 0.1) / 2))
    assert d_p[1, 1] == pytest.approx(scale * math.sqrt(14 * 3 * math.log(2 * 2 * t / 0.1) / 16))
    assert d_p[0, 0] == pytest.approx(scale * math.sqrt(14 * 3 * math.log(2 * 2 * t / 0.1)))


def test_an_episode_ends_when_a_pair_has_been_visited_as_often_in_it_as_before() -> None:
    learner = UCRL2(1, 1, delta=0.1)
    begun = []
    for t in range(40):
        learner.act(0)
        if not learner.in_episode.any():
            begun.append(t)
        learner.observe(0, 0, 0.0, 0)
    assert begun == [0, 1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("seed", range(5))
def test_there_are_as_few_episodes_as_the_paper_says(seed: int) -> None:
    learner, mdp, episodes, steps = UCRL2(3, 3, delta=0.05, width_scale=0.2), stationary(seed), 0, 4_000
    state = 0
    for u, v in np.random.default_rng(seed).random((steps, 2)).tolist():
        before = learner.plan
        action = learner.act(state)
        episodes += learner.plan is not before
        reward, following = mdp.step(0, state, action, u, v)
        learner.observe(state, action, reward, following)
        state = following
    assert 0 < episodes <= 9 * math.log2(8 * steps / 9)  # their proposition 18


@pytest.mark.parametrize("seed", range(10))
def test_the_plan_is_optimistic(seed: int) -> None:
    learner, mdp = UCRL2(3, 3, delta=0.05), stationary(seed)
    optimum = float(mdp.gains[0])
    for _ in range(10):
        walk(learner, mdp, 300, seed)
        assert learner.plan.gain + learner.plan.accuracy >= optimum


def test_it_comes_near_the_optimum() -> None:
    gaps = []
    for seed in range(5):
        learner, mdp = UCRL2(3, 3, delta=0.05, width_scale=0.1), stationary(seed)
        walk(learner, mdp, 4_000, seed)
        gaps.append(mdp.gains[0] - walk(learner, mdp, 4_000, seed + 100))
    assert np.mean(gaps) < 0.02


def test_it_learns_a_funnel_whose_first_stages_pay_nothing() -> None:
    mdp = funnel(change=10**9)
    assert mdp.allowed is not None
    learner = UCRL2(mdp.n_states, mdp.n_actions, delta=0.05, width_scale=0.1, allowed=mdp.allowed)
    walk(learner, mdp, 10_000)
    planned = [mdp.actions[a] for a in learner.plan.policy]
    assert dict(zip(mdp.states, planned, strict=True)) == {
        "landing": "reviews", "product": "discount", "cart": "express"
    }  # fmt: skip
    assert not learner.visits[~mdp.allowed].any()


def test_a_state_known_to_pay_nothing_is_not_hoped_from() -> None:
    learner = UCRL2(2, 1, delta=0.05, unrewarded=np.array([False, True]))
    d_r, _ = learner.radii()
    assert d_r[0, 0] > 0.0
    assert d_r[1, 0] == 0.0


def test_a_restart_forgets_all_but_the_time() -> None:
    learner, mdp = UCRL2(3, 3, delta=0.05), stationary(1)
    walk(learner, mdp, 500)
    learner.restart()
    assert learner.t == 500
    for counts in (learner.visits, learner.rewards, learner.transitions, learner.in_episode):
        assert not counts.any()
    fresh = UCRL2(3, 3, delta=0.05)
    fresh.t = 500
    fresh.begin_episode()
    assert_allclose(learner.plan.q, fresh.plan.q)


@pytest.mark.parametrize("steps", [0, 1, 777])
def test_a_restored_learner_goes_on_bit_for_bit(steps: int) -> None:
    mdp, learner, again = stationary(4), UCRL2(3, 3, delta=0.05), UCRL2(3, 3, delta=0.05)
    walk(learner, mdp, steps)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **learner.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as archive:
        again.restore(archive)
    for each in (learner, again):
        walk(each, mdp, 500, seed=9)
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in learner.arrays().items()}


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"visits has shape \(2, 2\), expected \(3, 2\)"):
        UCRL2(3, 2, delta=0.1).restore(UCRL2(2, 2, delta=0.1).arrays())
    arrays = UCRL2(2, 2, delta=0.1).arrays()
    del arrays["q"]
    with pytest.raises(KeyError):
        UCRL2(2, 2, delta=0.1).restore(arrays)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0.0}, "delta must lie between 0 and 1"),
        ({"delta": 0.1, "width_scale": 0.0}, "width_scale must be a positive number"),
        ({"delta": 0.1, "allowed": np.zeros((2, 2), np.bool_)}, "an action for every state"),
        ({"delta": 0.1, "allowed": np.ones((2, 3), np.bool_)}, r"shape \(2, 2\)"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UCRL2(2, 2, **settings)  # type: ignore[arg-type]
