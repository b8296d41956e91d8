from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.sequential.environments import SwitchingMDP, What, funnel, retry_ladder, switching


def drawn(what: What, seed: int = 0) -> SwitchingMDP:
    return switching(np.random.default_rng(seed), n_states=4, n_actions=7, horizon=50_000, n_segments=6, what=what)


@pytest.mark.parametrize("mdp", [drawn("both"), funnel(100), retry_ladder(100)])
def test_every_allowed_pair_leads_somewhere(mdp: SwitchingMDP) -> None:
    allowed = np.ones((mdp.n_states, mdp.n_actions), np.bool_) if mdp.allowed is None else mdp.allowed
    assert_allclose(mdp.transitions.sum(axis=-1)[:, allowed], 1.0)
    assert ((mdp.rewards >= 0.0) & (mdp.rewards <= 1.0)).all()
    assert allowed.any(axis=1).all()


@pytest.mark.parametrize("seed", range(20))
def test_change_points_keep_half_an_even_segment_between_them(seed: int) -> None:
    starts = drawn("both", seed).starts
    assert starts[0] == 0
    lengths = np.diff([*starts, 50_000])
    assert len(lengths) == 6
    assert lengths.min() >= 50_000 // 12


def test_what_is_not_named_does_not_change() -> None:
    rewards, transitions, both = drawn("rewards"), drawn("transitions"), drawn("both")
    assert (rewards.transitions == rewards.transitions[0]).all()
    assert (transitions.rewards == transitions.rewards[0]).all()
    for one, two in itertools.pairwise(range(6)):
        assert (rewards.rewards[one] != rewards.rewards[two]).all()
        assert (transitions.transitions[one] != transitions.transitions[two]).all()
        assert (both.rewards[one] != both.rewards[two]).all()


def test_steps_follow_the_truth() -> None:
    mdp = drawn("both")
    draws = [mdp.step(3, 2, 5, u, v) for u, v in np.random.default_rng(1).random((20_000, 2)).tolist()]
    rewards, following = np.array(draws).T
    assert rewards.mean() == pytest.approx(mdp.rewards[3, 2, 5], abs=0.015)
    assert_allclose(np.bincount(following, minlength=4) / 20_000, mdp.transitions[3, 2, 5], atol=0.015)
    assert mdp.step(3, 2, 5, 0.0, np.nextafter(1.0, 0.0))[1] == 3


def test_segments_begin_at_their_starts() -> None:
    mdp = funnel(change=100)
    assert [mdp.segment(t) for t in (0, 99, 100, 10**6)] == [0, 0, 1, 1]


@pytest.mark.parametrize("mdp", [funnel(100), retry_ladder(100)])
def test_the_change_of_a_named_process_makes_the_old_policy_worse(mdp: SwitchingMDP) -> None:
    assert mdp.allowed is not None

    def gain(segment: int, policy: tuple[int, ...]) -> float:
        o = np.arange(mdp.n_states)
        P, r = mdp.transitions[segment, o, policy], mdp.rewards[segment, o, policy]
        return float(np.linalg.matrix_power(0.5 * P + 0.5 * np.eye(len(P)), 2_000)[0] @ r)

    policies = list(itertools.product(*(np.flatnonzero(row).tolist() for row in mdp.allowed)))
    best = [max((gain(segment, policy), policy) for policy in policies)[1] for segment in (0, 1)]
    for segment in (0, 1):
        assert gain(segment, best[segment]) == pytest.approx(mdp.gains[segment], abs=1e-6)
        assert gain(segment, best[1 - segment]) < mdp.gains[segment] - 0.02
