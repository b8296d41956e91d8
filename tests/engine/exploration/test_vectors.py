"""Known vectors: from papers' formulas worked by hand, and from other implementations."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engine.config import ExplorationConfig, FastCBConfig
from engine.exploration import (
    Bag,
    Cap,
    CappedIGW,
    Cover,
    EpsilonGreedy,
    Exploration,
    Falcon,
    FastCB,
    First,
    Floor,
    LinUCB,
    RegCB,
    SmoothIGW,
    Softmax,
    SquareCB,
)
from engine.exploration.bag import votes
from engine.exploration.base import Range
from engine.exploration.candidates import Top
from engine.exploration.floor import project
from engine.prediction import Prediction
from tests.contract.predictions import any_scores, learned_counts

Float64 = NDArray[np.float64]

COSTS = np.array([0.2, 0.25, 0.5, 0.9])


def pmf(exploration: Exploration, costs: list[float] | Float64, learned: int = 1) -> list[float]:
    return list(map(float, exploration.pmf(Prediction(1.0 - np.array(costs)), learned)))


class Given(Exploration):
    """Says what it was told to say."""

    kind: ClassVar[str] = "given"

    def __init__(self, *p: float) -> None:
        self.p = np.array(p)

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> Given:
        raise NotImplementedError

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        return self.p


def around(p: list[float]) -> Prediction:
    return Prediction(np.zeros(len(p)))


# ---- SquareCB


@settings(max_examples=200)
@given(
    scores=any_scores,
    learned=learned_counts,
    scale=st.one_of(st.floats(0.0, 1e4), st.floats(0.0, 1e300)),
    exponent=st.floats(0.0, 1.0),
)
def test_squarecb_gives_every_action_its_least_share(
    scores: Float64, learned: int, scale: float, exponent: float
) -> None:
    exploration = SquareCB(scale, exponent)
    p = exploration.pmf(Prediction(scores), learned)
    # Plain floats overflow to infinity without a word: then the bound is 0, and support is still owed.
    widest = float(scores.max()) - float(scores.min())
    gamma = exploration.gamma(learned)
    weighted = gamma * widest if gamma and widest else 0.0
    others = p[scores < scores.max()]
    assert (others >= (1.0 - 1e-12) / (len(scores) + weighted)).all()
    assert p.min() > 0.0
    assert p.max() >= 1.0 / len(scores) - 1e-15, "the best has what the others leave, less a rounding of the sum"
    assert abs(math.fsum(p) - 1.0) <= 1e-12


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, [0.25, 0.25, 0.25, 0.25]),
        (1.0, [0.3077623228, 0.2469135802, 0.2325581395, 0.2127659574]),
        (10.0, [0.5440115440, 0.2222222222, 0.1428571429, 0.0909090909]),
        (100.0, [0.8459636107, 0.1111111111, 0.0294117647, 0.0135135135]),
        (1_000.0, [0.9767715533, 0.0185185185, 0.0032894737, 0.0014204545]),
    ],
)
def test_squarecb_on_known_vectors(gamma: float, expected: list[float]) -> None:
    costs = np.array([0.2, 0.25, 0.5, 0.9])
    assert_allclose(SquareCB(gamma, 0.0).pmf(Prediction(-costs), 1), expected, rtol=0.0, atol=5e-11)


def test_squarecb_on_a_logged_event_of_another_implementation() -> None:
    # Event 113 of Vowpal Wabbit's cb_load, after 112 learned ones, recomputed in float64.
    costs = [-0.80721676, -0.42401418, -0.92268026, -0.17487183, -0.43243819, -0.3207013, -0.28137797]
    expected = [0.05203047, 0.01672972, 0.87514842, 0.01160893, 0.01698302, 0.01414278, 0.01335665]
    assert_allclose(SquareCB().pmf(Prediction(-np.array(costs)), 112), expected, rtol=0.0, atol=2e-8)


def test_squarecb_takes_costs_of_any_sign_and_shares_among_ties() -> None:
    assert_allclose(
        SquareCB(20.0, 0.0).pmf(Prediction(np.array([1.0, 0.9, 0.0])), 1),
        [0.7565217391, 0.2, 0.0434782609],
        rtol=0.0,
        atol=5e-11,
    )
    # Together the ties have what the best one has in the paper and its ties beside it: 1 - 1/24.
    assert_allclose(
        SquareCB(50.0, 0.0).pmf(Prediction(-np.array([0.3, 0.3, 0.3, 0.7])), 1),
        [23 / 72, 23 / 72, 23 / 72, 1 / 24],
        rtol=1e-12,
    )


def test_squarecb_becomes_greedier_with_what_is_learned() -> None:
    explore = SquareCB(gamma_scale=10.0, gamma_exponent=0.5)
    assert [explore.gamma(n) for n in (0, 1, 100)] == [0.0, 10.0, 100.0]
    best = [explore.pmf(Prediction(np.array([0.5, 0.4])), n)[0] for n in (0, 1, 100, 10_000)]
    assert best[0] == 0.5
    assert best == sorted(best)
    assert SquareCB(7.0, 0.0).gamma(10**9) == 7.0


@pytest.mark.parametrize(
    ("gamma", "lambda_", "expected"),
    [
        (1.0, 3.755795122575771, None),
        (10.0, 2.5662276103871284, [0.3896770481, 0.3261336492, 0.1796548884, 0.1045344143]),
        (100.0, 1.2591143732, None),
    ],
)
def test_normalised_squarecb_on_known_vectors(gamma: float, lambda_: float, expected: list[float] | None) -> None:
    p = pmf(SquareCB(gamma, 0.0, form="normalised"), COSTS)
    assert_allclose(1.0 / p[0], lambda_, rtol=1e-10)
    assert_allclose(p, 1.0 / (lambda_ + gamma * (COSTS - 0.2)), rtol=0.0, atol=1e-10)
    if expected is not None:
        assert_allclose(p, expected, rtol=0.0, atol=5e-11)


def test_squarecb_without_the_implausible_weighs_those_that_stay_by_their_number() -> None:
    # Bounds with two std: [.7, .9], [.65, .85], [.2, .8] and [0, .2]: the greatest lower one is .7, and three reach it.
    prediction = Prediction(np.array([0.8, 0.75, 0.5, 0.1]), std=np.array([0.05, 0.05, 0.15, 0.05]))
    p = SquareCB(10.0, 0.0, eliminate=2.0).pmf(prediction, 1)
    assert_allclose(p, [1.0 - 1 / 3.5 - 1 / 6.0, 1 / 3.5, 1 / 6.0, 0.0], rtol=1e-12)


# ---- FastCB


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (1.0, [0.4495543672, 0.2352941176, 0.1818181818, 0.1333333333]),
        (10.0, [0.7678812416, 0.1538461538, 0.0526315789, 0.0256410256]),
        (100.0, [0.9561988761, 0.0344827586, 0.0064935065, 0.0028248588]),
    ],
)
def test_fastcb_on_known_vectors(gamma: float, expected: list[float]) -> None:
    assert_allclose(pmf(FastCB(1.0, gamma, 0.0), COSTS), expected, rtol=0.0, atol=5e-11)


def test_fastcb_where_nothing_can_be_lost() -> None:
    greedy = FastCB(1.0, 10.0, 0.0, least_loss=0.0)
    assert pmf(greedy, [0.0, 0.2, 0.5]) == [1.0, 0.0, 0.0]
    assert pmf(greedy, [0.0, 0.0, 0.5]) == [0.5, 0.5, 0.0]  # 0/0 in the formula as it stands
    assert_allclose(pmf(greedy, [0.0, 0.0, 0.5], learned=0), [1 / 3, 1 / 3, 1 / 3], rtol=1e-12)
    floored = pmf(FastCB(1.0, 10.0, 0.0, least_loss=1e-6), [0.0, 0.2, 0.5])
    assert_allclose(floored[1:], [1e-6 / (3e-6 + 2.0), 1e-6 / (3e-6 + 5.0)], rtol=1e-9)


@pytest.mark.parametrize("reward_range", [(0.0, 1.0), (-1.0, 0.0), (-3.0, 5.0)])
def test_fastcb_measures_losses_from_the_greatest_reward_of_the_range(reward_range: Range) -> None:
    low, high = reward_range
    exploration = FastCB.from_config(FastCBConfig(gamma_scale=10.0, gamma_exponent=0.0), reward_range)
    rewards = high - COSTS * (high - low)
    p = exploration.pmf(Prediction(rewards).times(1.0 / (high - low)), 1)
    assert_allclose(p, [0.7678812416, 0.1538461538, 0.0526315789, 0.0256410256], rtol=0.0, atol=5e-11)


def test_fastcb_counts_scores_beyond_the_range_as_its_ends() -> None:
    inside = pmf(FastCB(1.0, 10.0, 0.0), [0.2, 1.0, 1.0])
    assert pmf(FastCB(1.0, 10.0, 0.0), [0.2, 7.0, 1.0]) == inside
    assert pmf(FastCB(1.0, 10.0, 0.0), [-3.0, -0.1, 0.5])[0] == pytest.approx(0.5, abs=1e-6)


# ---- FALCON


def test_falcon_is_squarecb_with_the_gamma_of_its_epoch() -> None:
    falcon = Falcon(constant=0.5, complexity=8.0)
    assert falcon.gamma(4, 32) == 0.5 * math.sqrt(4 * 32 / 8)
    assert pmf(falcon, COSTS, 32) == pmf(SquareCB(2.0, 0.0), COSTS)
    assert pmf(falcon, COSTS, 0) == [0.25] * 4


@given(served=st.integers(0, 10**9), more=st.integers(0, 10**9))
def test_falcon_is_due_when_a_power_of_two_was_passed(served: int, more: int) -> None:
    passed = any(served < 2**m <= served + more for m in range(40))
    assert Falcon().due(served, served + more) == passed
    assert Cap(Floor(Falcon())).due(served, served + more) == passed
    assert SquareCB().due(served, served + more)


@given(served=st.integers(0, 10**6), more=st.integers(0, 10**6), growth=st.sampled_from([1.1, 1.25, 1.5, 3.0, 10.0]))
def test_falcon_is_due_when_a_power_of_its_growth_was_passed(served: int, more: int, growth: float) -> None:
    passed = any(served < growth**m <= served + more for m in range(150))
    assert Falcon(growth=growth).due(served, served + more) == passed


# ---- simple ones, as another implementation's tests have them


def test_epsilon_greedy_on_known_vectors() -> None:
    assert_allclose(pmf(EpsilonGreedy(0.4), [0.9, 0.8, 0.1, 0.7]), [0.1, 0.1, 0.7, 0.1], rtol=1e-12)
    assert_allclose(pmf(EpsilonGreedy(0.4), [0.1, 0.8, 0.1, 0.7]), [0.4, 0.1, 0.4, 0.1], rtol=1e-12)
    decaying = EpsilonGreedy(0.3, decay_after=100)
    assert [round(decaying.share(n), 12) for n in (0, 700)] == [0.3, 0.15]


def test_softmax_on_a_known_vector() -> None:
    p = Softmax(0.2).pmf(Prediction(np.array([1.0, 2.0, 3.0, 8.0])), 1)
    assert_allclose(p, [0.128, 0.157, 0.192, 0.522], rtol=0.0, atol=1e-3)
    assert_allclose(p[1] / p[0], math.exp(0.2), rtol=1e-12)


def test_first_explores_and_then_commits() -> None:
    explore = First(10)
    assert pmf(explore, COSTS, 9) == [0.25] * 4
    assert pmf(explore, COSTS, 10) == [1.0, 0.0, 0.0, 0.0]


def test_votes_on_a_known_vector() -> None:
    assert votes(np.eye(4)[[2, 2, 3, 3]]).tolist() == [0.0, 0.0, 0.5, 0.5]
    members = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert Bag().pmf(Prediction(members.mean(axis=0), members=members), 1).tolist() == [0.25, 0.25, 0.5]


def test_cover_lowers_its_least_probability_as_it_learns() -> None:
    members = np.eye(4)[[0, 0, 0, 1]]
    prediction = Prediction(members.mean(axis=0), members=members)
    assert Cover().pmf(prediction, 0).tolist() == [0.25] * 4
    assert Cover().least(4, 100) == 1.0 / math.sqrt(400)
    # [.75, .25, 0, 0] with no less than .05: the two pay .1 for the others, .05 each.
    assert_allclose(Cover().pmf(prediction, 100), [0.7, 0.2, 0.05, 0.05], rtol=1e-12)
    assert_allclose(Cover(uniform=False).pmf(prediction, 100), [0.75, 0.25, 0.0, 0.0], rtol=1e-12)


# ---- bounds

BOUNDED = Prediction(np.array([0.5, 0.4, 0.1, 0.45]), std=np.array([0.02, 0.2, 0.05, 0.01]))


def test_linucb_takes_the_greatest_upper_bound() -> None:
    assert LinUCB(1.0).pmf(BOUNDED, 1).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert LinUCB(0.0).pmf(BOUNDED, 1).tolist() == [1.0, 0.0, 0.0, 0.0]
    tied = Prediction(np.array([0.5, 0.25]), std=np.array([0.25, 0.5]))
    assert LinUCB(1.0).pmf(tied, 1).tolist() == [0.5, 0.5]


def test_regcb_keeps_what_may_be_the_best() -> None:
    # Nothing learned: sqrt(log(e)) = 1. Lower bounds .48, .2, .05, .44; upper ones .52, .6, .15, .46.
    assert RegCB().pmf(BOUNDED, 0).tolist() == [0.5, 0.5, 0.0, 0.0]
    assert RegCB("optimistic").pmf(BOUNDED, 0).tolist() == [0.0, 1.0, 0.0, 0.0]
    # With wider bounds [.46, .54] and [.43, .47] the last stays in.
    assert RegCB(beta=2.0).pmf(BOUNDED, 0).tolist() == [1 / 3, 1 / 3, 0.0, 1 / 3]
    assert RegCB(width=0.03).pmf(Prediction(BOUNDED.mean), 0).tolist() == [0.5, 0.0, 0.0, 0.5]
    grown = RegCB().half_width(BOUNDED, 1_000)
    assert_allclose(grown, math.sqrt(math.log(math.e + 4_000)) * BOUNDED.std, rtol=1e-12)  # type: ignore[operator]


# ---- many actions


def test_smooth_igw_with_tau_k_is_squarecb() -> None:
    assert_allclose(pmf(SmoothIGW(10.0, 0.0, tau=4.0), COSTS), pmf(SquareCB(10.0, 0.0), COSTS), rtol=1e-12)
    p = pmf(SmoothIGW(10.0, 0.0, tau=1.0), COSTS)
    assert_allclose(p[1:], 0.25 / (1.0 + 10.0 * (COSTS[1:] - 0.2)), rtol=1e-12)


@given(
    scores=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50).map(np.array),
    tau=st.floats(1.0, 100.0),
    gamma=st.one_of(st.floats(0.0, 1e4), st.floats(0.0, 1e300)),
)
def test_capped_igw_keeps_every_importance_weight_bounded(scores: Float64, tau: float, gamma: float) -> None:
    p = CappedIGW(gamma, 0.0, tau=tau).pmf(Prediction(scores), 1)
    assert p.max() <= tau / len(scores) * (1.0 + 1e-12)


def test_capped_igw_by_hand() -> None:
    # tau / K = 1/2. Two at the cap leave nothing; so beta lies below the second gap, .1: 1/2 + p_2 + p_3 = 1 with
    # p = (1/2) / (1 + 10 (gap - beta)). Solved for x = 10 beta: 1 / (2 - x) + 1 / (6 - x) = 1, x = (6 - sqrt(20)) / 2.
    x = (6.0 - math.sqrt(20.0)) / 2.0
    p = pmf(CappedIGW(10.0, 0.0, tau=1.5), [0.0, 0.1, 0.5])
    assert_allclose(p, [0.5, 0.5 / (2.0 - x), 0.5 / (6.0 - x)], rtol=1e-12)


def test_only_candidates_get_anything() -> None:
    p = pmf(SmoothIGW(10.0, 0.0, tau=2.0, candidates=Top(2)), [0.5, 0.2, 0.9, 0.25])
    assert [p[0], p[2]] == [0.0, 0.0]
    assert_allclose([p[1], p[3]], pmf(SmoothIGW(10.0, 0.0, tau=2.0), [0.2, 0.25]), rtol=1e-12)


# ---- wrappers


@pytest.mark.parametrize(
    ("p", "epsilon", "include_zero", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.3, True, [0.8, 0.1, 0.1]),
        ([0.9, 0.1, 0.0], 0.6, False, [0.7, 0.3, 0.0]),
        ([0.89, 0.11, 0.0], 0.3, True, [0.8, 0.1, 0.1]),
        ([0.89, 0.11, 0.0], 0.3, False, [0.85, 0.15, 0.0]),
        ([0.2, 0.7, 0.1], 1.0, True, [1 / 3, 1 / 3, 1 / 3]),
        ([0.2, 0.7, 0.1], 0.0, True, [0.2, 0.7, 0.1]),
        ([0.3, 0.5, 0.2], 0.6, True, [0.3, 0.5, 0.2]),  # keeps the floor: stays as it is
    ],
)
def test_projection_on_known_vectors(p: list[float], epsilon: float, include_zero: bool, expected: list[float]) -> None:
    assert_allclose(project(np.array(p), epsilon, include_zero), expected, rtol=0.0, atol=1e-12)
    if include_zero:
        floor = Floor(Given(*p), epsilon, method="project")
        assert_allclose(floor.pmf(around(p), 1), expected, rtol=0.0, atol=1e-12)


@given(weights=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), epsilon=st.floats(0.0, 1.0))
def test_a_floor_holds_whichever_way(weights: list[float], epsilon: float) -> None:
    total = math.fsum(weights)
    p = [w / total for w in weights] if total > 1e-3 else [1.0 / len(weights)] * len(weights)
    for method in ("mix", "project"):
        floored = Floor(Given(*p), epsilon, "mix" if method == "mix" else "project").pmf(around(p), 1)
        assert floored.min() >= epsilon / len(p) * (1.0 - 1e-12)
        assert abs(math.fsum(floored) - 1.0) <= 1e-12


def test_mixing_adds_to_every_action() -> None:
    assert_allclose(Floor(Given(0.9, 0.1, 0.0), 0.3).pmf(around([0] * 3), 1), [0.73, 0.17, 0.1], rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "most", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.8, [0.8, 0.1, 0.1]),
        ([0.7, 0.3, 0.0], 0.5, [0.5, 0.4, 0.1]),
        ([0.5, 0.48, 0.02], 0.4, [0.4, 0.4, 0.2]),
        ([0.5, 0.3, 0.2], 0.6, [0.5, 0.3, 0.2]),
        ([0.7, 0.2, 0.1], 0.1, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_a_cap_gives_what_it_takes_to_all_below_it_alike(p: list[float], most: float, expected: list[float]) -> None:
    assert_allclose(Cap(Given(*p), most).pmf(around(p), 1), expected, rtol=0.0, atol=1e-12)


@given(weights=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), most=st.floats(0.01, 1.0))
def test_a_cap_holds(weights: list[float], most: float) -> None:
    total = math.fsum(weights)
    p = [w / total for w in weights] if total > 1e-3 else [1.0 / len(weights)] * len(weights)
    capped = Cap(Given(*p), most).pmf(around(p), 1)
    assert capped.max() <= max(most, 1.0 / len(p)) * (1.0 + 1e-12)
    assert abs(math.fsum(capped) - 1.0) <= 1e-12
