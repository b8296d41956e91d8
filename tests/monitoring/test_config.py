from __future__ import annotations

import pytest
from pydantic import ValidationError

from monitoring.budget import Budget
from monitoring.config import MonitorsConfig, RewardMonitorConfig
from monitoring.weights import AnytimeWeight, ShapedWeight


def test_defaults_are_those_of_the_detector() -> None:
    config = MonitorsConfig().reward
    assert config.enabled
    assert config.weight == Budget()
    assert RewardMonitorConfig(weight_scale=1e-6).weight == ShapedWeight(1e-6, 1.0)


def test_delta_gives_the_proved_weight() -> None:
    assert RewardMonitorConfig(delta=0.01).weight == AnytimeWeight(0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reward": {"cool_down": 3}},
        {"rewards": {}},
        {"reward": {"weight_scale": 0}},
        {"reward": {"min_effect": -0.1}},
        {"reward": {"max_candidates": 4}},
        {"reward": {"cooldown": -1}},
        {"reward": {"delta": 0.05, "weight_scale": 1e-6}},
        {"reward": {"delta": 0.05, "false_alarm_rate": 0.05}},
        {"reward": {"weight_exponent": 2.0}},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MonitorsConfig.model_validate(wrong)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MonitorsConfig().reward.cooldown = 3  # type: ignore[misc]
