"""What docs/exploration.md says can be run and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from engine.config import ExplorationConfig
from engine.exploration import EXPLORATIONS, make_exploration

TEXT = (Path(__file__).parents[3] / "docs" / "exploration.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_programs_run() -> None:
    programs = blocks("python")
    assert len(programs) > 1
    exec("\n".join(programs), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_configurations_can_be_read(text: str) -> None:
    said = TypeAdapter(ExplorationConfig).validate_python(yaml.safe_load(text)["exploration"])
    assert make_exploration(said, (0.0, 1.0)).kind == said.kind


def test_every_exploration_is_described() -> None:
    assert {kind for kind in EXPLORATIONS if f"| `{kind}` |" not in TEXT} == set()
