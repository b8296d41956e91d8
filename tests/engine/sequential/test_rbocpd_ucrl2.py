from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.sequential import RBOCPDUCRL2
from engine.sequential.environments import SwitchingMDP, What, switching
from tests.engine.sequential.exact_detector import ExactDetector

HORIZON = 3_000


class Scripted:
    """A detector that alarms when told."""

    made: list[Scripted]

    def __init__(self, categories: int, delta: float) -> None:
        self.categories, self.delta = categories, delta
        self.seen: list[int] = []
        self.resets = 0
        self.alarm = False
        Scripted.made.append(self)

    def update(self, symbol: int) -> bool:
        self.seen.append(symbol)
        return self.alarm

    def reset(self) -> None:
        self.resets += 1
        self.seen.clear()
        self.alarm = False

    def save(self) -> bytes:
        return bytes(self.seen)

    def restore(self, data: bytes) -> None:
        self.seen = list(data)


@pytest.fixture
def made() -> list[Scripted]:
    """Return the scripted detectors of the test, in the order of their making."""
    Scripted.made = []
    return Scripted.made


def process(seed: int, what: What, segments: int = 2) -> SwitchingMDP:
    rng = np.random.default_rng(seed)
    return switching(rng, n_states=3, n_actions=2, horizon=HORIZON, n_segments=segments, what=what)


def walk(learner: RBOCPDUCRL2, mdp: SwitchingMDP, start: int = 0, stop: int = HORIZON, seed: int = 0) -> None:
    state = 0
    for t, (u, v) in enumerate(np.random.default_rng(seed).random((stop - start, 2)).tolist(), start):
        action = learner.act(state)
        reward, following = mdp.step(mdp.segment(t), state, action, u, v)
        learner.observe(state, action, reward, following)
        state = following


def learner_of(*, test_rewards: bool = True) -> RBOCPDUCRL2:
    return RBOCPDUCRL2(3, 2, delta=0.05, width_scale=0.1, detector=ExactDetector, test_rewards=test_rewards)


def test_each_pair_has_two_detectors_that_share_delta(made: list[Scripted]) -> None:
    allowed = np.array([[True, True], [True, False], [True, False]])
    RBOCPDUCRL2(
        3, 2, delta=0.06, detector=Scripted, allowed=allowed, unrewarded=np.array([False, False, True])
    )  # fmt: skip
    assert [detector.categories for detector in made] == [3, 3, 3, 3, 2, 2, 2]
    assert {detector.delta for detector in made} == {0.06 / 12}


def test_each_detector_sees_its_own_pair_alone(made: list[Scripted]) -> None:
    learner = RBOCPDUCRL2(2, 2, delta=0.05, detector=Scripted)
    learner.observe(0, 1, 1.0, 1)
    learner.observe(1, 0, 0.0, 0)
    learner.observe(0, 1, 0.0, 0)
    # Successors of (0,0), (0,1), (1,0), (1,1), then what they paid.
    assert [detector.seen for detector in made] == [[], [1, 0], [0], [], [], [1, 0], [0], []]


@pytest.mark.parametrize("which", range(8))
def test_an_alarm_of_any_pair_restarts_everything(made: list[Scripted], which: int) -> None:
    learner = RBOCPDUCRL2(2, 2, delta=0.05, detector=Scripted)
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for pair in pairs:
        learner.observe(*pair, 1.0, 1)
    made[which].alarm = True
    learner.observe(*pairs[which % 4], 0.0, 0)
    assert learner.restarts == [5]
    assert learner.t == 5
    assert not learner.visits.any()
    assert not learner.transitions.any()
    assert not learner.rewards.any()
    assert [detector.resets for detector in made] == [1] * 8
    assert not any(detector.seen for detector in made)
    learner.observe(0, 0, 0.0, 0)
    assert learner.visits.sum() == 1.0
    assert learner.restarts == [5]


def test_a_reward_between_zero_and_one_is_a_one_as_often_as_it_is_great(made: list[Scripted]) -> None:
    learner = RBOCPDUCRL2(1, 1, delta=0.05, detector=Scripted)
    coins = np.random.default_rng(0).random(4_000).tolist()
    for coin in coins:
        learner.observe(0, 0, 0.3, 0, coin)
    assert np.mean(made[1].seen) == pytest.approx(0.3, abs=0.03)
    for reward in (0.0, 1.0):
        for coin in (0.0, 0.5, np.nextafter(1.0, 0.0)):
            learner.observe(0, 0, reward, 0, coin)
            assert made[1].seen[-1] == reward


@pytest.mark.parametrize("what", ["both", "rewards", "transitions"])
def test_a_change_is_caught(what: What) -> None:
    caught = 0
    for seed in range(4):
        mdp, learner = process(seed, what), learner_of()
        walk(learner, mdp, seed=seed)
        caught += any(restart > mdp.starts[1] for restart in learner.restarts)
        assert not any(restart <= mdp.starts[1] for restart in learner.restarts)
    assert caught >= 3


def test_without_detectors_of_rewards_a_change_of_rewards_is_not_seen() -> None:
    for seed in range(3):
        learner = learner_of(test_rewards=False)
        walk(learner, process(seed, "rewards"), seed=seed)
        assert learner.restarts == []


def test_a_process_that_stays_is_left_alone() -> None:
    # delta = 0.05 bounds the chance of each of ten runs: more than two have one of a hundred.
    alarmed = 0
    for seed in range(10):
        learner = learner_of()
        walk(learner, process(seed, "both", segments=1), stop=1_500, seed=seed)
        alarmed += bool(learner.restarts)
    assert alarmed <= 2


@pytest.mark.parametrize("cut", [0, 400, 2_000])
def test_a_restored_learner_goes_on_bit_for_bit(cut: int) -> None:
    mdp, learner, again = process(2, "both"), learner_of(), learner_of()
    walk(learner, mdp, 0, cut)
    again.restore(learner.arrays())
    for each in (learner, again):
        walk(each, mdp, cut, HORIZON, seed=5)
    assert learner.restarts == again.restarts
    assert len(learner.restarts) > 0
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in learner.arrays().items()}


def test_a_damaged_state_is_refused() -> None:
    learner = learner_of()
    walk(learner, process(2, "both"), 0, 300)
    arrays = learner.arrays()
    for key in arrays:
        with pytest.raises(KeyError):
            learner_of().restore({name: array for name, array in arrays.items() if name != key})
    for key in ("detectors", "detector_lengths"):
        with pytest.raises(ValueError, match="detectors"):
            learner_of().restore({**arrays, key: arrays[key][:-1]})


def test_the_reference_detector_decides_by_the_exact_ratio() -> None:
    # Two categories, ten zeros then ones: by hand, with factorials.
    from math import comb, factorial

    def evidence(zeros: int, ones: int) -> float:
        return factorial(zeros) * factorial(ones) / factorial(zeros + ones + 1)

    for delta in (0.05, 0.5):
        detector = ExactDetector(2, delta)
        symbols = [0] * 10 + [1] * 20
        for n, symbol in enumerate(symbols, start=1):
            found = detector.update(symbol)
            ratios = []
            for n1 in range(1, n):
                before, after = symbols[:n1], symbols[n1:n]
                split = evidence(before.count(0), before.count(1)) * evidence(after.count(0), after.count(1))
                eta = delta / (n1 * (n1 + 1) * comb(n + 1, 1))
                ratios.append(eta * split / evidence(symbols[:n].count(0), symbols[:n].count(1)))
            assert found == any(ratio > 1.0 for ratio in ratios)
        assert found
    assert not any(itertools.starmap(lambda _, x: ExactDetector(2, 0.05).update(x), enumerate([0, 1])))
