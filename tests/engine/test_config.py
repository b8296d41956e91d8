from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from engine.config import (
    FLOAT32_MAX,
    ActionsConfig,
    CappedIGWConfig,
    DecisionPoint,
    EpsilonGreedyConfig,
    LinearOracleConfig,
    NumberFeature,
    PolicyConfig,
    RewardConfig,
    ServingConfig,
    SquareCBConfig,
    TextFeature,
    VectorFeature,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("1.5s", 1_500),
        ("30 s", 30_000),
        (" 10m ", 600_000),
        ("36h", 129_600_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("0s", 0),
        ("0.0004ms", 0),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "10",
        "m",
        "9 minutes",
        "-5s",
        "1e3s",
        "5S",
        "1,5s",
        ".5s",
        "5s5s",
        "inf s",
        1.5,
        True,
        None,
        [5],
        "9" * 400 + "s",
    ],
    ids=lambda wrong: repr(wrong)[:20],
)
def test_what_is_no_duration_is_refused_with_what_would_be(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"is no duration; write a number with a unit, such as 500ms"):
        parse_duration(wrong)
    with pytest.raises(ValidationError, match="is no duration"):
        RewardConfig.model_validate({"window": wrong})


def test_a_whole_number_is_milliseconds() -> None:
    assert RewardConfig.model_validate({"window": 250}).window == 250


@pytest.mark.parametrize(
    ("model", "wrong", "where"),
    [
        (RewardConfig, {"window": "0s"}, "window"),
        (RewardConfig, {"window": -1}, "window"),
        (RewardConfig, {"grace": -1}, "grace"),
        (RewardConfig, {"aggregation": "median"}, "aggregation"),
        (RewardConfig, {"default": float("nan")}, "default"),
        (RewardConfig, {"range": [1.0, 0.0]}, "two finite numbers in ascending order"),
        (RewardConfig, {"range": [0.0, 0.0]}, "two finite numbers in ascending order"),
        (RewardConfig, {"range": [0.0, float("inf")]}, "two finite numbers in ascending order"),
        (RewardConfig, {"range": [float("nan"), 1.0]}, "two finite numbers in ascending order"),
        (RewardConfig, {"range": [0.0]}, "range"),
        (RewardConfig, {"range": [0.5, 1.0]}, "default 0.0 lies outside range"),
        (RewardConfig, {"range": [0.0, 1.0], "default": 1.5}, "default 1.5 lies outside range"),
        (LinearOracleConfig, {"ridge": 0.0}, "ridge"),
        (LinearOracleConfig, {"ridge": 1e-9}, "ridge"),
        (LinearOracleConfig, {"ridge": float("inf")}, "ridge"),
        (LinearOracleConfig, {"forgetting": 0.5}, "forgetting"),
        (LinearOracleConfig, {"forgetting": 1.01}, "forgetting"),
        (LinearOracleConfig, {"max_actions": 0}, "max_actions"),
        (SquareCBConfig, {"gamma_scale": -1.0}, "gamma_scale"),
        (SquareCBConfig, {"gamma_scale": float("inf")}, "gamma_scale"),
        (SquareCBConfig, {"gamma_exponent": 1.5}, "gamma_exponent"),
        (PolicyConfig, {"publish_interval": "10ms"}, "publish_interval"),
        (PolicyConfig, {"drift_exploration": 1.1}, "drift_exploration"),
        (PolicyConfig, {"exploration": {"kind": "psychic"}}, "exploration"),
        (PolicyConfig, {"exploration": {"kind": "floor", "inner": {"kind": "psychic"}}}, "psychic"),
        (PolicyConfig, {"exploration": {"kind": "floor", "inner": {"kind": "softmax", "gamma": 1}}}, "gamma"),
        (PolicyConfig, {"exploration": {"kind": "lints"}}, "'lints' needs std .* 'linear' does not give .* choose"),
        (PolicyConfig, {"exploration": {"kind": "cap", "inner": {"kind": "bag"}}}, "'cap' needs members .* 'linear'"),
        (PolicyConfig, {"exploration": {"kind": "squarecb", "eliminate": 2.0}}, "'squarecb' needs std"),
        (EpsilonGreedyConfig, {"epsilon": 1.1}, "epsilon"),
        (CappedIGWConfig, {"tau": 0.5}, "tau"),
        (DecisionPoint, {"policy": {"exploration": {"kind": "spanner_igw"}}}, "actions.features is empty; declare"),
        (NumberFeature, {"type": "number", "scale": float("nan")}, "scale"),
        (NumberFeature, {"type": "number", "scale": 1e39}, "scale"),
        (VectorFeature, {"type": "vector", "size": 2, "scale": -1e39}, "scale"),
        (VectorFeature, {"type": "vector", "size": 0}, "size"),
        (VectorFeature, {"type": "vector"}, "size"),
        (TextFeature, {"type": "text", "buckets": 1}, "buckets"),
        (ActionsConfig, {"max": 0}, "max"),
        (DecisionPoint, {"context": {"a": {"type": "colour"}}}, "colour"),
        (DecisionPoint, {"context": {"Amount": {"type": "number"}}}, "Amount"),
        (DecisionPoint, {"context": {"a b": {"type": "number"}}}, "a b"),
        (DecisionPoint, {"context": {"a\n": {"type": "number"}}}, "context"),
        (DecisionPoint, {"context": {"": {"type": "number"}}}, "context"),
        (DecisionPoint, {"context": {"a" * 64: {"type": "number"}}}, "context"),
        (DecisionPoint, {"unknown_features": "maybe"}, "unknown_features"),
        (DecisionPoint, {"rewards": {}}, "rewards"),
        (ServingConfig, {"port": 65_536}, "port"),
        (ServingConfig, {"workers": 0}, "workers"),
        (ServingConfig, {"default_deadline": 0}, "default_deadline"),
        (ServingConfig, {"idempotency_cache": -1}, "idempotency_cache"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(
    model: type[BaseModel], wrong: dict[str, Any], where: str
) -> None:
    with pytest.raises(ValidationError, match=where):
        model.model_validate(wrong)


@pytest.mark.parametrize("scale", [FLOAT32_MAX, -FLOAT32_MAX, 0.0, 1e-30])
def test_any_scale_that_is_a_float32_is_allowed(scale: float) -> None:
    assert NumberFeature(type="number", scale=scale).scale == scale


def test_defaults_are_valid_and_cannot_be_changed() -> None:
    point = DecisionPoint()
    assert point.reward.range == (0.0, 1.0)
    assert point.policy.exploration == SquareCBConfig()
    with pytest.raises(ValidationError, match="frozen"):
        point.unknown_features = "ignore"  # type: ignore[misc]


def test_a_decision_point_survives_json_with_the_order_of_its_features() -> None:
    names = ["zeta", "alpha", "mid"]
    point = DecisionPoint.model_validate({"context": {name: {"type": "number"} for name in names}})
    again = DecisionPoint.model_validate_json(point.model_dump_json())
    assert again == point
    assert list(again.context) == names


def test_features_too_wide_for_the_statistics_are_refused_with_their_size() -> None:
    with pytest.raises(ValidationError, match=r"65536 columns.*32\.0 GiB; use fewer buckets"):
        DecisionPoint.model_validate({"context": {"user": {"type": "text", "buckets": 65_536}}})


@pytest.mark.parametrize("width", [1e-10, 1e13])
def test_a_range_of_absurd_width_is_refused(width: float) -> None:
    with pytest.raises(ValidationError, match="another unit of reward"):
        RewardConfig(range=(0.0, width))


def test_an_exploration_around_another_survives_json() -> None:
    said = {"kind": "cap", "most": 0.8, "inner": {"kind": "floor", "epsilon": 0.1, "inner": {"kind": "falcon"}}}
    policy = PolicyConfig.model_validate({"exploration": said})
    assert PolicyConfig.model_validate_json(policy.model_dump_json()) == policy
    assert policy.exploration.model_dump(exclude_unset=True) == said
