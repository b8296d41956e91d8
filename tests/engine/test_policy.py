from __future__ import annotations

import dataclasses
import math
import re
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from engine.config import DecisionPoint, ExplorationConfig
from engine.features import Encoded, Float32
from engine.oracles import Arrays, LinearOracle
from engine.policy import OracleFailure, Policy, initial_policy, uniform_pmf
from engine.prediction import Prediction
from tests.engine.samples import NAME, POINT, VOCABULARY, actions, context, make_policy

POLICY = make_policy()


def encoded(*excluded: str) -> Encoded:
    return POLICY.encoder.encode(context(), actions(*excluded))


class Oracle:
    """An oracle that answers what it is told."""

    kind: ClassVar[str] = "linear"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return np.array(self.answer, dtype=np.float64)

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Oracle:
        return cls(None)


def test_scores_are_the_oracles() -> None:
    request = encoded()
    scores = POLICY.predict(request).mean
    assert scores.tolist() == POLICY.oracle.predict(request.X, request.codes).tolist()
    assert len(set(scores.tolist())) == 4


def test_an_excluded_action_gets_0_and_the_others_what_they_get_without_it() -> None:
    request = encoded("east", "west")
    prediction = POLICY.predict(request)
    p = POLICY.pmf(prediction, request.available)
    assert p[[1, 3]].tolist() == [0.0, 0.0]
    assert p[[0, 2]].tolist() == POLICY.exploration.pmf(prediction.take(np.array([0, 2])), POLICY.learned).tolist()


@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    mask=st.integers(0, 2**30 - 1),
    share=st.floats(0.0, 1.0),
)
def test_a_probability_vector_over_the_available_actions(scores: list[float], mask: int, share: float) -> None:
    available = np.array([bool(mask >> i & 1) for i in range(len(scores))])
    available[mask % len(scores)] = True
    values = np.array(scores)
    policy = make_policy(uniform_share=share)
    p = policy.pmf(Prediction(values), available)
    assert (p[~available] == 0.0).all()
    assert (p[available] > 0.0).all()
    assert abs(math.fsum(p) - 1.0) <= 1e-12
    # Mixed: the share goes to every available action alike, the rest as without it.
    expected = (1.0 - share) * POLICY.pmf(Prediction(values), available) + share * uniform_pmf(available)
    np.testing.assert_allclose(p, expected, rtol=0.0, atol=1e-15)
    assert (p[available] >= share / available.sum() - 1e-15).all()


def test_a_share_of_1_is_uniform_and_of_0_changes_no_bit() -> None:
    request = encoded("north")
    prediction = POLICY.predict(request)
    uniform = make_policy(uniform_share=1.0).pmf(prediction, request.available)
    assert uniform.tolist() == uniform_pmf(request.available).tolist()
    zero = make_policy(uniform_share=0.0).pmf(prediction, request.available)
    assert zero.tobytes() == POLICY.pmf(prediction, request.available).tobytes()


def test_the_range_of_the_reward_is_the_unit_of_exploration() -> None:
    wide = POINT.model_copy(update={"reward": POINT.reward.model_copy(update={"range": (-8.0, 8.0)})})
    policy = make_policy(point=wide)
    available = np.ones(3, dtype=np.bool_)
    scores = np.array([0.5, 0.25, 0.0])
    assert (
        policy.pmf(Prediction(16.0 * scores), available).tolist() == POLICY.pmf(Prediction(scores), available).tolist()
    )


def test_more_learned_explores_less() -> None:
    request = encoded()
    prediction = POLICY.predict(request)
    best = [make_policy(learned=n).pmf(prediction, request.available).max() for n in (0, 10, 1_000, 100_000)]
    assert best[0] == 0.25
    assert best == sorted(set(best))


VERSION = make_policy().version


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"point": POINT.model_copy(update={"unknown_features": "ignore"})},
        {"vocabulary": ("east", "north", "south")},
        {"vocabulary": VOCABULARY[:2]},
        {"oracle": make_policy(seed=2).oracle},
        {"generation": 2},
        {"update": 1},
        {"learned": 5},
        {"uniform_share": 0.1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_content_is_another_version(change: dict[str, object]) -> None:
    assert re.fullmatch(r"g1\.0-[0-9a-f]{8}", VERSION)
    changed: Policy = dataclasses.replace(POLICY, **change)  # type: ignore[arg-type]
    assert changed.version != VERSION
    assert changed.digest() != POLICY.digest()


def test_one_bit_of_a_coefficient_is_another_version() -> None:
    assert isinstance(POLICY.oracle, LinearOracle)
    theta = POLICY.oracle.theta.copy()
    theta[2, 3] = np.nextafter(theta[2, 3], 1.0)
    assert make_policy(oracle=LinearOracle(theta)).version != VERSION


def test_features_in_another_order_are_another_version() -> None:
    # They are other columns: coefficients would be taken for those of other features.
    turned = dict(reversed(POINT.context.items()))
    assert turned == POINT.context
    assert make_policy(point=POINT.model_copy(update={"context": turned})).version != VERSION


def test_the_same_content_is_the_same_version_whenever_and_wherever_it_was_made() -> None:
    assert make_policy(created_ms=1).version == VERSION
    reread = DecisionPoint.model_validate_json(POINT.model_dump_json())
    assert make_policy(point=reread).version == VERSION
    assert isinstance(POLICY.oracle, LinearOracle)
    fortran = LinearOracle(np.asfortranarray(POLICY.oracle.theta))
    assert make_policy(oracle=fortran).version == VERSION


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        POLICY.learned = 0  # type: ignore[misc]


@pytest.mark.parametrize("answer", [ValueError("no"), MemoryError(), IndexError("code 9"), ZeroDivisionError()])
def test_an_oracle_that_raises_is_an_oracle_failure_that_says_so(answer: Exception) -> None:
    with pytest.raises(OracleFailure, match=type(answer).__name__):
        make_policy(oracle=Oracle(answer)).predict(encoded())


def test_a_stop_of_the_process_is_no_oracle_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        make_policy(oracle=Oracle(KeyboardInterrupt())).predict(encoded())


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("excluded", ["", "south"])
def test_a_score_that_is_not_finite_is_an_oracle_failure(wrong: float, excluded: str) -> None:
    # Of an excluded action too: the scores are logged, and a broken oracle is not trusted on the others.
    with pytest.raises(OracleFailure, match=f"score {wrong}"):
        make_policy(oracle=Oracle([0.1, 0.2, wrong, 0.3])).predict(encoded(excluded))


def test_a_score_beyond_float64_in_units_of_the_range_is_an_oracle_failure() -> None:
    narrow = POINT.model_copy(update={"reward": POINT.reward.model_copy(update={"range": (0.0, 0.001)})})
    with pytest.raises(OracleFailure, match="1e\\+306"):
        make_policy(oracle=Oracle([1e306, 0.0, 0.0, 0.0]), point=narrow).predict(encoded())


@pytest.mark.parametrize("answer", [0.5, [0.1, 0.2, 0.3], [[0.1], [0.2], [0.3], [0.4]], []])
def test_scores_of_another_shape_are_an_oracle_failure(answer: object) -> None:
    with pytest.raises(OracleFailure, match=r"shape .* for 4 actions"):
        make_policy(oracle=Oracle(answer)).predict(encoded())


def test_the_greatest_scores_that_are_allowed_give_a_vector() -> None:
    policy = make_policy(oracle=Oracle([1.7e308, -1.7e308, 0.0, 1.0]))
    request = encoded()
    p = policy.pmf(policy.predict(request), request.available)
    assert p[0] == 1.0
    assert (p > 0.0).all()


def test_coefficients_that_do_not_fit_the_columns_are_an_oracle_failure() -> None:
    with pytest.raises(OracleFailure):
        make_policy(oracle=LinearOracle(np.zeros((4, 3)))).predict(encoded())


class UnsureOracle(Oracle):
    """One that says how sure it is, as it is told."""

    def __init__(self, answer: object, std: object) -> None:
        super().__init__(answer)
        self.std = std

    def predict_std(self, X: Float32, codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.predict(X, codes), np.array(self.std, dtype=np.float64)


def exploring(**exploration: object) -> DecisionPoint:
    # As a newer configuration would have it, with an oracle that gives what it needs.
    made = TypeAdapter(ExplorationConfig).validate_python(exploration)
    return POINT.model_copy(update={"policy": POINT.policy.model_copy(update={"exploration": made})})


@pytest.mark.parametrize(
    ("exploration", "part"),
    [
        ({"kind": "lints"}, "std"),
        ({"kind": "bag"}, "members"),
        ({"kind": "cap", "inner": {"kind": "floor", "inner": {"kind": "linucb"}}}, "std"),
    ],
)
def test_an_oracle_that_cannot_give_what_the_exploration_needs_is_refused(
    exploration: dict[str, object], part: str
) -> None:
    with pytest.raises(ValueError, match=f"'{exploration['kind']}' needs {part} .* 'linear' does not give"):
        make_policy(oracle=Oracle([0.1]), point=exploring(**exploration))


def test_an_oracle_that_says_how_sure_it_is_serves_what_needs_it() -> None:
    wide = exploring(kind="lints").model_copy(update={"reward": POINT.reward.model_copy(update={"range": (0.0, 10.0)})})
    policy = make_policy(oracle=UnsureOracle([5.0, 4.0, 3.0, 1.0], [0.3, 0.4, 2.0, 0.0]), point=wide)
    request = encoded()
    p = policy.pmf(policy.predict(request), request.available)
    expected = policy.exploration.pmf(
        Prediction(np.array([0.5, 0.4, 0.3, 0.1]), std=np.array([0.03, 0.04, 0.2, 0.0])), 4
    )
    np.testing.assert_allclose(p, expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("std", "message"),
    [
        ([0.1, 0.1], "std of shape"),
        ([0.1, -0.1, 0.1, 0.1], "negative"),
        ([0.1, math.nan, 0.1, 0.1], "NaN"),
        ([0.1, math.inf, 0.1, 0.1], "std inf is not finite"),
    ],
)
def test_an_std_that_cannot_be_used_is_an_oracle_failure(std: list[float], message: str) -> None:
    policy = make_policy(oracle=UnsureOracle([0.1] * 4, std), point=exploring(kind="linucb"))
    with pytest.raises(OracleFailure, match=message):
        policy.predict(encoded())


def test_rows_are_there_for_an_exploration_that_looks_at_them() -> None:
    policy = make_policy(point=exploring(kind="spanner_igw"))
    request = encoded("north")
    p = policy.pmf(policy.predict(request), request.available)
    assert p[0] == 0.0
    assert abs(math.fsum(p) - 1.0) <= 1e-12


def test_the_initial_policy_explores_uniformly_and_knows_no_action() -> None:
    policy = initial_policy(NAME, POINT, 5, generation=3)
    request = policy.encoder.encode(context(), actions("west"))
    p = policy.pmf(policy.predict(request), request.available)
    assert p.tolist() == [1 / 3, 1 / 3, 1 / 3, 0.0]
    assert (policy.learned, policy.vocabulary, policy.created_ms) == (0, (), 5)
    assert policy.version.startswith("g3.0-")
