"""Modes in the configuration: what goes with them, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from engine.errors import ConfigError
from streaming.cli import main
from streaming.config import load_config


def written(directory: Path, **point: Any) -> Path:
    path = directory / "leeway.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "decision_points": {"offers": point}}))
    return path


def test_a_mode_in_which_no_policy_acts_is_not_retrained_on_a_schedule(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mode is logging_only, .* set retraining.enabled: false"):
        load_config(written(tmp_path, mode="logging_only"), {})
    config = load_config(written(tmp_path, mode="logging_only", retraining={"enabled": False}), {})
    assert config.points()["offers"].mode == "logging_only"


def test_nothing_is_tried_beside_a_caller(tmp_path: Path) -> None:
    path = written(tmp_path, mode="logging_only", retraining={"enabled": False})
    result = CliRunner().invoke(main, ["rollout", "start", "--config", str(path), "--mode", "shadow"])
    assert result.exit_code != 0
    assert "decision_points.offers.mode is logging_only" in result.output
