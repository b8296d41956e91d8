from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import DecisionPoint, LinearOracleConfig, UCRL2OracleConfig
from streaming.config import DecisionPointConfig
from tests.engine.sequential.samples import shop_point, shop_settings


def test_the_states_name_their_actions() -> None:
    oracle = shop_point().policy.oracle
    assert isinstance(oracle, UCRL2OracleConfig)
    assert oracle.actions == ("plain", "reviews", "discount", "express")


def test_an_oracle_without_a_kind_is_linear() -> None:
    point = DecisionPoint.model_validate({"policy": {"oracle": {"ridge": 2.0}}})
    assert point.policy.oracle == LinearOracleConfig(ridge=2.0)
    assert DecisionPoint.model_validate(point.model_dump(mode="json")) == point
    assert DecisionPoint.model_validate(shop_point().model_dump(mode="json")) == shop_point()


@pytest.mark.parametrize(
    ("oracle", "message"),
    [
        ({"state": "step"}, "needs the context feature 'step' of type text"),
        ({"unit": "user"}, "needs the context feature 'user' of type text"),
        ({"unit": "stage"}, "unit and state are both 'stage'"),
        ({"terminal": ["paid"]}, r"terminal names \['paid'\], which states does not declare"),
        ({"states": {"landing": ["a", "a"]}}, "names an action twice"),
        ({"states": {"landing": []}}, "at least 1 item"),
        ({"states": {}}, "at least 1 item"),
        ({"delta": 1.0}, "less than 1"),
        ({"width_scale": 0.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_planned_for_is_refused_by_name(oracle: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        shop_point(**oracle)


def test_states_that_share_a_bucket_are_refused() -> None:
    settings = shop_settings(states={f"stage{number}": ["a"] for number in range(9)})
    settings["context"]["stage"]["buckets"] = 8
    with pytest.raises(ValidationError, match=r"of the 8 buckets of context\.stage; give it more, such as buckets: 16"):
        DecisionPoint.model_validate(settings)


def test_an_exploration_that_does_not_follow_the_plan_is_refused() -> None:
    settings = shop_settings()
    del settings["policy"]["exploration"]
    with pytest.raises(ValidationError, match=r"policy.exploration is squarecb.*epsilon_greedy"):
        DecisionPoint.model_validate(settings)


def test_retraining_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"set retraining.enabled: false"):
        DecisionPointConfig.model_validate(shop_settings())
    DecisionPointConfig.model_validate({**shop_settings(), "retraining": {"enabled": False}})
