"""What every exploration owes, whichever it is. A new one is found by itself."""

from __future__ import annotations

import importlib
import math
import pkgutil
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from pydantic import TypeAdapter

import engine.exploration
from engine.config import ExplorationConfig
from engine.exploration import EXPLORATIONS, Exploration, make_exploration
from engine.prediction import Prediction
from engine.sampling import draw
from tests.contract.predictions import any_prediction, any_scores, complete, learned_counts

Float64 = NDArray[np.float64]

#: Every exploration as its configuration has it by default, and in the ways that it can be set.
CONFIGURED: list[dict[str, Any]] = [
    *({"kind": kind} for kind in EXPLORATIONS),
    {"kind": "epsilon_greedy", "epsilon": 0.2, "decay_after": 50},
    {"kind": "softmax", "lambda_scale": 1.0, "lambda_exponent": 0.5},
    {"kind": "squarecb", "form": "normalised"},
    {"kind": "squarecb", "eliminate": 2.0},
    {"kind": "fastcb", "least_loss": 0.0},
    {"kind": "regcb", "mode": "optimistic"},
    {"kind": "regcb", "width": 0.1},
    {"kind": "cover", "epsilon": 0.3, "uniform": False},
    {"kind": "smooth_igw", "candidates": {"kind": "top", "count": 3}},
    {"kind": "capped_igw", "tau": 2.0, "gamma_exponent": 0.0},
    {"kind": "capped_igw", "tau": 1.0, "candidates": {"kind": "spanner", "count": 3}},
    {"kind": "spanner_igw", "candidates": {"kind": "top", "count": 5}},
    {"kind": "floor", "inner": {"kind": "lints"}},
    {"kind": "floor", "method": "project", "inner": {"kind": "bag"}},
    {"kind": "floor", "method": "project", "epsilon": 1.0, "inner": {"kind": "linucb"}},
    {"kind": "cap", "most": 0.3, "inner": {"kind": "floor", "inner": {"kind": "regcb"}}},
    {"kind": "cap", "most": 0.5, "inner": {"kind": "linucb"}},
]


def make(config: dict[str, Any], reward_range: tuple[float, float] = (0.0, 1.0)) -> Exploration:
    return make_exploration(TypeAdapter(ExplorationConfig).validate_python(config), reward_range)


def name(config: dict[str, Any]) -> str:
    settings = ["-".join(name(v) if isinstance(v, dict) else f"{v}" for v in (value,)) for value in config.values()]
    return " ".join(settings)


def every_exploration_but(*kinds: str) -> pytest.MarkDecorator:
    """Parametrize over every exploration; ``kinds``, also inside others, do not owe it."""
    owing = [config for config in CONFIGURED if not any(f"'{kind}'" in repr(config) for kind in kinds)]
    return pytest.mark.parametrize("exploration", [make(config) for config in owing], ids=[name(c) for c in owing])


every_exploration = every_exploration_but()
#: The vector of these depends on where rows lie, and one of two equal actions is enough for a spanner.
PLACED = ("spanner", "spanner_igw")
few = settings(max_examples=25)


def changed(prediction: Prediction, part: str, value: Any) -> Prediction:
    change: dict[str, Any] = {part: value}
    return replace(prediction, **change)


def rounding(exploration: Exploration) -> float:
    """Return how far two orders of summation may move a probability, more where an equation is solved for it."""
    innermost = getattr(exploration, "inner", exploration)
    solved = innermost.kind in ("lints", "capped_igw") or getattr(innermost, "form", "") == "normalised"
    return 1e-12 if solved else 1e-15


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


@pytest.mark.parametrize("config", CONFIGURED, ids=name)
def test_a_configuration_says_what_its_exploration_needs(config: dict[str, Any]) -> None:
    said = TypeAdapter(ExplorationConfig).validate_python(config)
    assert said.needs == make_exploration(said, (0.0, 1.0)).needs


@every_exploration
@few
@given(prediction=any_prediction(), learned=learned_counts)
def test_a_probability_vector_whatever_is_predicted(
    exploration: Exploration, prediction: Prediction, learned: int
) -> None:
    before = prediction.mean.tobytes()
    p = exploration.pmf(prediction, learned)
    assert p.shape == prediction.mean.shape
    assert p.dtype == np.float64
    assert (p >= 0.0).all()
    assert abs(math.fsum(p) - 1.0) <= 1e-12
    assert prediction.mean.tobytes() == before, "the caller's scores were changed"
    assert exploration.pmf(prediction, learned).tobytes() == p.tobytes(), "a replay would differ"


@every_exploration_but(*PLACED)
@few
@given(scores=any_scores, learned=learned_counts)
def test_a_better_score_never_gets_less_and_an_equal_one_the_same(
    exploration: Exploration, scores: Float64, learned: int
) -> None:
    # All else being equal: std and members too.
    p = exploration.pmf(complete(scores, equal=True), learned)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(p[order]) >= -rounding(exploration)).all()
    tied = scores[order][1:] == scores[order][:-1]
    assert (np.diff(p[order])[tied] == 0.0).all()


@every_exploration
@few
@given(prediction=any_prediction(), learned=learned_counts, seed=st.integers(0, 1_000))
def test_the_order_of_actions_does_not_matter(
    exploration: Exploration, prediction: Prediction, learned: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(prediction.mean))
    assert_allclose(
        exploration.pmf(prediction.take(order), learned),
        exploration.pmf(prediction, learned)[order],
        rtol=0.0,
        atol=rounding(exploration),
    )


@every_exploration_but("fastcb")
@few
@given(
    # Multiples of 1/1024, so that the sum with a whole number is exact.
    numerators=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20),
    shift=st.integers(-(2**20), 2**20),
    learned=learned_counts,
    seed=st.integers(0, 1_000),
)
def test_only_differences_of_scores_matter(
    exploration: Exploration, numerators: list[int], shift: int, learned: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    prediction = Prediction(
        np.array(numerators) / 1024.0,
        rng.integers(0, 2**10, size=len(numerators)) / 1024.0,
        rng.integers(-(2**10), 2**10, size=(5, len(numerators))) / 1024.0,
        rng.normal(size=(len(numerators), 4)).astype(np.float32),
    )
    assert prediction.members is not None
    shifted = replace(prediction, mean=prediction.mean + shift, members=prediction.members + shift)
    assert exploration.pmf(shifted, learned).tolist() == exploration.pmf(prediction, learned).tolist()


@every_exploration
@few
@given(
    scores=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30).map(np.array),
    learned=learned_counts,
    seed=st.integers(0, 1_000),
)
def test_no_action_gets_less_than_is_promised(
    exploration: Exploration, scores: Float64, learned: int, seed: int
) -> None:
    p = exploration.pmf(complete(scores, seed), learned)
    assert p.min() >= exploration.minimum(len(scores), learned) * (1.0 - 1e-9)


def test_what_promises_support_says_so() -> None:
    promising = {kind for kind in EXPLORATIONS if make({"kind": kind}).minimum(10, 100) > 0.0}
    deterministic = {"linucb", "regcb", "lints", "bag", "spanner_igw"}
    assert promising == set(EXPLORATIONS) - deterministic


@every_exploration
def test_one_action_is_certain(exploration: Exploration) -> None:
    assert exploration.pmf(complete(np.array([0.3])), 1_000).tolist() == [1.0]


@every_exploration
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(exploration: Exploration, wrong: float) -> None:
    with pytest.raises(ValueError, match=f"score {wrong} of action 1 is not finite"):
        exploration.pmf(replace(complete(np.array([0.1, 0.2])), mean=np.array([0.1, wrong])), 10)
    for part in exploration.needs & {"std", "members"}:
        numbers = np.array([0.1, wrong]) if part == "std" else np.array([[0.1, wrong], [0.2, 0.2]])
        with pytest.raises(ValueError, match=f"{wrong} of action 1 is not finite"):
            exploration.pmf(changed(complete(np.array([0.1, 0.2])), part, numbers), 10)


@every_exploration
def test_what_it_needs_must_be_there_and_of_the_right_shape(exploration: Exploration) -> None:
    prediction = complete(np.array([0.1, 0.2, 0.3]))
    for part in exploration.needs:
        with pytest.raises(ValueError, match=f"needs {part}"):
            exploration.pmf(changed(prediction, part, None), 10)
        short = complete(np.array([0.1, 0.2]))
        with pytest.raises(ValueError, match=f"needs {part}"):
            exploration.pmf(changed(prediction, part, getattr(short, part)), 10)
    with pytest.raises(ValueError, match="one or more actions"):
        exploration.pmf(prediction.take(np.zeros(3, dtype=np.bool_)), 10)


@every_exploration
@pytest.mark.parametrize("form", ["strided", "read-only", "big-endian"])
def test_what_lies_in_memory_in_another_way_gives_the_same(exploration: Exploration, form: str) -> None:
    def laid_out(values: NDArray[Any]) -> NDArray[Any]:
        match form:
            case "strided":
                return np.repeat(values, 2, axis=-1)[..., ::2] if values.ndim == 1 else np.asfortranarray(values)
            case "read-only":
                values = values.copy()
                values.flags.writeable = False
                return values
            case _:
                return values.astype(values.dtype.newbyteorder(">"))

    prediction = complete(np.array([0.8, 0.75, 0.5, 0.1]))
    parts: dict[str, Any] = {part: laid_out(getattr(prediction, part)) for part in ("mean", "std", "members", "rows")}
    other = Prediction(**parts)
    assert exploration.pmf(other, 10).tolist() == exploration.pmf(prediction, 10).tolist()


@every_exploration
def test_frequencies_of_the_draw_are_the_probabilities(exploration: Exploration) -> None:
    n = 5_000
    p = exploration.pmf(complete(np.array([0.8, 0.75, 0.5, 0.1])), 1)
    counts = np.bincount([draw(f"decision-{i}", "salt", p.tolist()) for i in range(n)], minlength=4)
    possible = p > 0.0
    assert not counts[~possible].any()
    p, counts = p[possible], counts[possible]
    chi_square = float(((counts - n * p) ** 2 / (n * p)).sum())
    bound = {1: 1e-9, 2: 10.83, 3: 13.82, 4: 16.27}[len(p)]
    assert chi_square < bound, f"{counts} for {p}: exceeded by 1 in 1000"
