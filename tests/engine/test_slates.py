from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from engine.exploration import Exploration, Floor, LinUCB, SquareCB
from engine.prediction import Prediction
from engine.slates import PlackettLuce, Slate, cascade, conditional, marginals
from engine.slates.plackett_luce import gumbels

Float64 = NDArray[np.float64]

P = np.array([0.5, 0.3, 0.0, 0.15, 0.05])
PREDICTION = Prediction(np.array([0.8, 0.7, 0.5, 0.1]), std=np.array([0.1, 0.2, 0.1, 0.3]))


def chi_square(counts: dict[tuple[int, ...], int], probabilities: dict[tuple[int, ...], float]) -> float:
    n = sum(counts.values())
    assert set(counts) <= set(probabilities)
    return sum((counts.get(order, 0) - n * p) ** 2 / (n * p) for order, p in probabilities.items())


def drawn(make: Callable[[str], Slate], n: int) -> dict[tuple[int, ...], int]:
    counts: dict[tuple[int, ...], int] = {}
    for i in range(n):
        order = make(f"d{i}").actions
        counts[order] = counts.get(order, 0) + 1
    return counts


# ---- Plackett-Luce


@given(
    weights=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6),
    slots=st.integers(1, 6),
)
def test_the_probabilities_of_all_lists_have_sum_1(weights: list[float], slots: int) -> None:
    model = PlackettLuce(np.array(weights))
    orders = itertools.permutations(range(len(weights)), min(slots, len(weights)))
    assert math.fsum(model.probability(order) for order in orders) == pytest.approx(1.0, abs=1e-12)


def test_lists_are_drawn_as_often_as_their_probability_says() -> None:
    model = PlackettLuce(P)
    probabilities: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(5), 3):
        if model.probability(order) > 0.0:
            probabilities[order] = model.probability(order)
    assert len(probabilities) == 24
    counts = drawn(lambda decision_id: model.draw_slate(decision_id, "salt", 3), 20_000)
    assert chi_square(counts, probabilities) < 49.73, "exceeded by 1 in 1000 with 23 degrees of freedom"


def test_each_slot_is_drawn_from_its_vector() -> None:
    slate = PlackettLuce(P).draw_slate("d7", "salt", 4)
    left = P.copy()
    for slot, action in enumerate(slate.actions):
        assert_allclose(slate.vectors[slot], left / left.sum(), rtol=1e-12)
        assert slate.propensities[slot] == slate.vectors[slot, action]
        left[action] = 0.0
    assert slate.probability == pytest.approx(math.prod(slate.propensities))
    assert 2 not in slate.actions
    assert sorted(slate.actions) == [0, 1, 3, 4]


def test_a_draw_is_replayed_and_fewer_slots_are_its_beginning() -> None:
    model = PlackettLuce(P)
    whole = model.draw_slate("d1", "salt", 4)
    again = model.draw_slate("d1", "salt", 4)
    assert again.actions == whole.actions
    assert again.vectors.tobytes() == whole.vectors.tobytes()
    assert model.draw_slate("d1", "salt", 2).actions == whole.actions[:2]
    assert len({model.draw_slate("d1", f"salt{i}", 4).actions for i in range(50)}) > 5
    assert model.slate(whole.actions).vectors.tobytes() == whole.vectors.tobytes()


def split_mix(seed: int, index: int) -> int:
    """Return a number of SplitMix64, in Python's integers."""
    x = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_the_draw_stays_what_it_is() -> None:
    # Of logged decisions: another value here would make every logged list impossible to replay.
    assert split_mix(1234567, 0) == 6457827717110365317  # as published with the generator
    seed = int.from_bytes(blake2b(b"6:leewaydecision", digest_size=8, person=b"slate").digest(), "big")
    numbers = [-math.log(-math.log(((split_mix(seed, i) >> 12) + 0.5) / 2**52)) for i in range(5)]
    assert_allclose(gumbels("decision", "leeway", 5), numbers, rtol=1e-12)
    assert PlackettLuce(P).draw_slate("decision", "leeway", 4).actions == (1, 0, 3, 4)


def test_the_numbers_of_actions_are_standard_gumbels_and_independent() -> None:
    numbers = np.array([gumbels(f"d{i}", "salt", 4) for i in range(20_000)])
    # Kolmogorov-Smirnov: exceeded by 1 in 1000.
    uniform = np.sort(np.exp(-np.exp(-numbers)), axis=0)
    steps = np.arange(1, 20_001)[:, None] / 20_000
    assert np.abs(uniform - steps).max() < 1.95 / math.sqrt(20_000)
    correlation = np.corrcoef(numbers.T) - np.eye(4)
    assert np.abs(correlation).max() < 4.0 / math.sqrt(20_000)


def test_one_action_of_nearly_all_the_probability_leaves_the_others_theirs() -> None:
    p = np.array([1.0, 3e-20, 1e-20])
    assert_allclose(conditional(p, [0]), [0.0, 0.75, 0.25], rtol=1e-12)
    assert_allclose(conditional(np.array([1.0, 3e-320, 1e-320]), [0]), [0.0, 0.75, 0.25], rtol=1e-2)


@pytest.mark.parametrize("slots", [0, 5])
def test_slots_that_cannot_be_filled_are_refused(slots: int) -> None:
    with pytest.raises(ValueError, match=f"{slots} slots, and 4 actions"):
        PlackettLuce(P).draw_slate("d1", "salt", slots)


@pytest.mark.parametrize("wrong", [[], [0.0, 0.0], [0.5, -0.1], [0.5, math.nan], [0.5, math.inf]])
def test_what_is_no_vector_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="none negative and one positive"):
        PlackettLuce(np.array(wrong))


def test_a_list_that_cannot_be_drawn_has_probability_0() -> None:
    model = PlackettLuce(P)
    assert model.probability([0, 0]) == 0.0
    assert model.probability([2]) == 0.0
    with pytest.raises(ValueError, match="slot 1 has action 0"):
        model.slate([0, 0])


# ---- cascade


@pytest.mark.parametrize("exploration", [SquareCB(), Floor(LinUCB(), 0.3)], ids=["squarecb", "linucb with a floor"])
def test_each_slot_of_a_cascade_is_the_exploration_over_what_is_left(exploration: Exploration) -> None:
    slate = cascade(exploration, PREDICTION, 10, 4, decision_id="d1", salt="salt")
    assert sorted(slate.actions) == [0, 1, 2, 3]
    left = [0, 1, 2, 3]
    for slot, action in enumerate(slate.actions):
        vector = np.zeros(4)
        vector[left] = exploration.pmf(PREDICTION.take(np.array(left)), 10)
        assert slate.vectors[slot].tolist() == vector.tolist()
        left.remove(action)
    assert slate.propensities[3] == 1.0


def cascade_probabilities(exploration: Exploration, slots: int) -> dict[tuple[int, ...], float]:
    """Multiply the slots' vectors along every list."""
    lists: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(slots):
        longer: dict[tuple[int, ...], float] = {}
        for order, probability in lists.items():
            left = np.array([a for a in range(4) if a not in order])
            for action, p in zip(left.tolist(), exploration.pmf(PREDICTION.take(left), 10), strict=True):
                longer[(*order, action)] = probability * float(p)
        lists = longer
    return lists


def test_the_lists_of_a_cascade_have_sum_1_and_are_drawn_as_often_as_they_say() -> None:
    probabilities = cascade_probabilities(SquareCB(1.0), 2)
    assert math.fsum(probabilities.values()) == pytest.approx(1.0, abs=1e-12)
    slates: dict[tuple[int, ...], Slate] = {}

    def make(decision_id: str) -> Slate:
        slate = cascade(SquareCB(1.0), PREDICTION, 10, 2, decision_id=decision_id, salt="salt")
        slates[slate.actions] = slate
        return slate

    counts = drawn(make, 10_000)
    assert chi_square(counts, probabilities) < 31.26, "exceeded by 1 in 1000 with 11 degrees of freedom"
    for order, slate in slates.items():
        assert slate.probability == pytest.approx(probabilities[order], rel=1e-12)


def test_a_cascade_may_score_anew_for_what_stands_above() -> None:
    seen: list[tuple[int, ...]] = []

    def rescore(so_far: tuple[int, ...]) -> Prediction:
        seen.append(so_far)
        # What is like the one above is worth nothing beside it.
        return Prediction(np.array([0.9, 0.8, 0.1]) if 0 not in so_far else np.array([0.0, 0.0, 0.1]))

    slate = cascade(SquareCB(1e12), rescore, 10, 2, decision_id="d1", salt="salt")
    assert slate.actions == (0, 2)
    assert seen == [(), (0,)]


@pytest.mark.parametrize("slots", [0, 5])
def test_a_cascade_of_slots_that_cannot_be_filled_is_refused(slots: int) -> None:
    with pytest.raises(ValueError, match=f"{slots} slots"):
        cascade(SquareCB(), PREDICTION, 10, slots, decision_id="d1", salt="salt")


def test_a_list_of_one_is_a_decision() -> None:
    slate = cascade(SquareCB(), PREDICTION, 10, 1, decision_id="d1", salt="salt")
    assert slate.vectors[0].tolist() == SquareCB().pmf(PREDICTION, 10).tolist()


def test_the_chance_of_an_item_in_a_slot_is_that_of_all_lists_that_have_it_there() -> None:
    p = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    lists = list(itertools.permutations(range(6), 4))
    chances = np.array([PlackettLuce(p).probability(actions) for actions in lists])
    wanted = [2, 0, 5, 1]
    truth = [sum(c for c, a in zip(chances, lists, strict=True) if a[slot] == item) for slot, item in enumerate(wanted)]

    def given(taken: Sequence[int]) -> Float64:
        return conditional(p, taken)

    assert_allclose(marginals(given, wanted, 1), truth, rtol=1e-10)
    drawn = np.array([marginals(given, wanted, seed, exact=0, draws=64) for seed in range(400)])
    assert_allclose(drawn[:, 0], truth[0], rtol=1e-12)
    assert (np.abs(drawn.mean(axis=0) - truth)[1:] < 4 * drawn.std(axis=0)[1:] / 20).all()
    assert (drawn.std(axis=0) / truth < 0.15).all()
