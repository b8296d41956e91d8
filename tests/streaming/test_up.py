from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from streaming.config import Config, load_config
from streaming.up import announce, hold_role, whereabouts, withdraw

TEXT = """
version: 1
decision_points: {offers: {}}
serving: {drain: 0ms, drain_grace: 0ms}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "leeway.yaml"
    path.write_text(TEXT)
    return load_config(path, {})


def test_a_data_directory_has_one_process_of_a_role(config: Config) -> None:
    hold_role(config, "serve")
    hold_role(config, "work")  # another role is another matter
    announce(config, "serve", port=1)
    with pytest.raises(ConfigError, match=r"another `leeway serve` \(pid \d+\) works there"):
        hold_role(config, "serve")


def test_who_has_gone_is_nowhere(config: Config) -> None:
    assert whereabouts(config, "serve") is None
    announce(config, "serve", port=1)
    facts = whereabouts(config, "serve")
    assert facts is not None
    assert facts["port"] == 1
    withdraw(config, "serve")
    assert whereabouts(config, "serve") is None
