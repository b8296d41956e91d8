from __future__ import annotations

import itertools
import math
import random
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling import draw, draw_each, uniform

IDS = st.text(max_size=40)
GOLDEN_UNIFORM = [0.5773383868560531, 0.7256320488795727, 0.45702682440518927, 0.6623727685768487, 0.6673861700311984]
GOLDEN_DRAWS = [int(digit) for digit in "3444443222422402444222342034444432434444"]


@given(IDS, IDS, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20).filter(any))
def test_a_draw_is_a_pure_function_of_id_salt_and_vector(decision_id: str, salt: str, vector: list[float]) -> None:
    random.seed(1)
    first = draw(decision_id, salt, vector)
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002  (the state that it must not read)
    assert draw(decision_id, salt, list(vector)) == first
    assert 0.0 <= uniform(decision_id, salt) < 1.0


@given(IDS, IDS, st.lists(st.sampled_from([0.0, 5e-324, 0.2, 0.3, 0.5]), min_size=1, max_size=8).filter(any))
def test_what_has_probability_0_is_never_drawn(decision_id: str, salt: str, vector: list[float]) -> None:
    # The vectors sum to anything from next to 0 to 4: rounding of the sum can never lead to an excluded action.
    assert vector[draw(decision_id, salt, vector)] > 0.0


@given(
    IDS,
    st.lists(
        st.tuples(IDS, st.lists(st.sampled_from([0.0, 5e-324, 1e-3, 0.1, 0.3]), min_size=3, max_size=3).filter(any)),
        min_size=1,
        max_size=8,
    ),
)
def test_many_are_drawn_as_each_alone(salt: str, its: list[tuple[str, list[float]]]) -> None:
    # Most of these sums are less than 1, so that what rounding may do at the end happens often.
    ids, vectors = [decision_id for decision_id, _ in its], [vector for _, vector in its]
    drawn = draw_each(ids, salt, np.array(vectors)).tolist()
    assert drawn == [draw(decision_id, salt, vector) for decision_id, vector in its]


@pytest.mark.parametrize("vector", [[], [0.0, 0.0], [math.nan], [-1.0]])
def test_nothing_to_draw_from_is_an_error(vector: list[float]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw("d", "s", vector)


def test_the_draw_never_changes() -> None:
    # Logged decisions of years are replayed with these numbers. Never correct them; correct the code.
    assert [uniform(decision_id, "leeway") for decision_id in ("d1", "d2", "", "é", "0" * 32)] == GOLDEN_UNIFORM
    assert [draw(f"decision-{i}", "leeway", [0.1, 0.0, 0.2, 0.3, 0.4]) for i in range(40)] == GOLDEN_DRAWS


def test_the_number_of_an_id_is_its_hash_as_described() -> None:
    digest = blake2b(b"6:leewayd1", digest_size=8).digest()
    assert uniform("d1", "leeway") == (int.from_bytes(digest, "big") >> 11) / 2**53


def test_salt_and_id_are_not_mixed_up() -> None:
    parts = ["", "a", "ab", "1:a", "a1:", "b"]
    numbers = {uniform(decision_id, salt) for decision_id, salt in itertools.product(parts, parts)}
    assert len(numbers) == len(parts) ** 2


def test_the_numbers_of_ids_are_uniform_and_another_salt_gives_independent_ones() -> None:
    n = 50_000
    one, other = (np.array([uniform(str(i), salt) for i in range(n)]) for salt in ("one", "other"))
    for numbers in (one, other):
        counts = np.histogram(numbers, bins=100, range=(0.0, 1.0))[0]
        # Quantile 0.999 of chi-square with 99 degrees of freedom.
        assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 148.2
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("count", [2, 10, 1_000])
def test_an_index_is_drawn_as_often_as_its_probability_says(count: int) -> None:
    n = 40_000
    vector = np.random.default_rng(count).dirichlet(np.full(count, 2.0))
    vector[0] = 0.0
    vector /= vector.sum()
    drawn = np.bincount([draw(f"id-{i}", "salt", vector.tolist()) for i in range(n if count < 1_000 else 4_000)])
    assert drawn[0] == 0
    frequencies = drawn / drawn.sum()
    # Over the indices together: half of the absolute differences, which is about sqrt(count / n) at most.
    distance = 0.5 * np.abs(frequencies - vector[: len(drawn)]).sum() + 0.5 * vector[len(drawn) :].sum()
    assert distance < math.sqrt(count / drawn.sum())


def test_cumulative_bounds_decide() -> None:
    u = uniform("d1", "leeway")
    above = math.nextafter(u, 1.0)
    # The index is the first whose cumulative sum exceeds the number of the id.
    assert draw("d1", "leeway", [u, 1.0 - u]) == 1
    assert draw("d1", "leeway", [above, 1.0 - above]) == 0
    # A sum that falls short of the number ends with the last positive index.
    assert draw("d1", "leeway", [u / 4, u / 4, 0.0]) == 1
