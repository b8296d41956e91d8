"""What every exploration owes, whichever it is. A new one is found by itself."""

from __future__ import annotations

import importlib
import math
import pkgutil
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from pydantic import TypeAdapter

import engine.exploration
from engine.config import ExplorationConfig
from engine.exploration import EXPLORATIONS, Exploration, SquareCB, make_exploration
from engine.prediction import Prediction
from engine.sampling import draw

Float64 = NDArray[np.float64]

#: Every exploration as its configuration has it by default.
DEFAULTS: dict[str, Exploration] = {
    kind: make_exploration(TypeAdapter(ExplorationConfig).validate_python({"kind": kind}), (0.0, 1.0))
    for kind in EXPLORATIONS
}
every_exploration = pytest.mark.parametrize("exploration", DEFAULTS.values(), ids=DEFAULTS)

learned_counts = st.one_of(st.integers(0, 3), st.integers(0, 10**18))


@st.composite
def random_scores(draw_: st.DrawFn) -> Float64:
    """Draw up to 10,000 scores of any magnitude, with and without ties."""
    count = draw_(st.sampled_from([1, 2, 3, 10, 100, 10_000]))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    shape = draw_(st.sampled_from(["normal", "ties", "equal", "one stands out"]))
    scores: Float64
    match shape:
        case "normal":
            scores = rng.normal(size=count)
        case "ties":
            scores = rng.integers(-1, 2, size=count).astype(np.float64)
        case "equal":
            scores = np.full(count, rng.normal())
        case _:
            scores = np.zeros(count)
            scores[rng.integers(count)] = rng.choice([-1.0, 1.0])
    return scores * draw_(st.sampled_from([1e-300, 1e-6, 1.0, 1e6, 1e300]))


any_scores = st.one_of(
    random_scores(),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12).map(np.array),
)


def test_every_exploration_of_the_package_is_registered_under_its_name() -> None:
    found = set()
    for module in pkgutil.iter_modules(engine.exploration.__path__, "engine.exploration."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and "kind" in vars(value):
                found.add(value)
    assert found == set(EXPLORATIONS.values())
    assert all(exploration.kind == kind for kind, exploration in EXPLORATIONS.items())


def test_every_exploration_can_be_configured() -> None:
    union = get_args(ExplorationConfig)[0]
    assert {member.model_fields["kind"].default for member in get_args(union)} == set(EXPLORATIONS)


@every_exploration
@given(scores=any_scores, learned=learned_counts)
def test_a_probability_vector_whatever_the_scores(exploration: Exploration, scores: Float64, learned: int) -> None:
    before = scores.copy()
    p = exploration.pmf(Prediction(scores), learned)
    assert p.shape == scores.shape
    assert p.dtype == np.float64
    assert (p >= 0.0).all()
    assert abs(math.fsum(p) - 1.0) <= 1e-12
    assert scores.tobytes() == before.tobytes(), "the caller's scores were changed"


@every_exploration
@given(scores=any_scores, learned=learned_counts)
def test_a_better_score_never_gets_less_and_an_equal_one_the_same(
    exploration: Exploration, scores: Float64, learned: int
) -> None:
    p = exploration.pmf(Prediction(scores), learned)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(p[order]) >= -1e-15).all()
    tied = np.diff(scores[order]) == 0.0
    assert (np.diff(p[order])[tied] == 0.0).all()


@every_exploration
@given(scores=any_scores, learned=learned_counts, seed=st.integers(0, 1_000))
def test_the_order_of_actions_does_not_matter(
    exploration: Exploration, scores: Float64, learned: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(scores))
    assert_allclose(
        exploration.pmf(Prediction(scores[order]), learned),
        exploration.pmf(Prediction(scores), learned)[order],
        rtol=0.0,
        atol=1e-15,
    )


@every_exploration
@given(
    # Multiples of 1/1024, so that the sum with a whole number is exact.
    numerators=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20),
    shift=st.integers(-(2**20), 2**20),
    learned=learned_counts,
)
def test_only_differences_of_scores_matter(
    exploration: Exploration, numerators: list[int], shift: int, learned: int
) -> None:
    scores = np.array(numerators) / 1024.0
    assert (
        exploration.pmf(Prediction(scores + shift), learned).tolist()
        == exploration.pmf(Prediction(scores), learned).tolist()
    )


@every_exploration
def test_one_action_is_certain(exploration: Exploration) -> None:
    assert exploration.pmf(Prediction(np.array([0.3])), 1_000).tolist() == [1.0]


@every_exploration
def test_frequencies_of_the_draw_are_the_probabilities(exploration: Exploration) -> None:
    n = 20_000
    p = exploration.pmf(Prediction(np.array([0.8, 0.75, 0.5, 0.1])), 1)
    counts = np.bincount([draw(f"decision-{i}", "salt", p.tolist()) for i in range(n)], minlength=4)
    chi_square = float(((counts - n * p) ** 2 / (n * p)).sum())
    assert chi_square < 16.27, f"{counts} for {p}: exceeded by 1 in 1000 with three degrees of freedom"


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
