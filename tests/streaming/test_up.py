from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from streaming.config import Config, load_config
from streaming.up import announce, announce_joiner, commands, hold_role, joiners, run_file, whereabouts, withdraw

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


def test_members_of_the_join_announce_themselves_beside_each_other(config: Config) -> None:
    dead = run_file(config, "join-0")
    name = announce_joiner(config, metrics_port=1)
    dead.write_text('{"pid": 999999999}')  # it was killed
    assert joiners(config) == [name]
    assert announce_joiner(config, metrics_port=2) == name
    assert not dead.exists()
    withdraw(config, name)
    assert joiners(config) == []


def test_what_up_starts(config: Config) -> None:
    def started(*only: str, joiners: int = 0) -> list[tuple[str, ...]]:
        return [command.arguments for command in commands(config, only, joiners)]

    assert started() == [("serve",), ("work",)]
    assert started("serve") == [("serve",)]
    # What serves is stopped before what joins, and that before what learns.
    assert started(joiners=2) == [("serve",), ("join",), ("join",), ("work", "--without-join")]
    assert started("work", joiners=1) == [("join",), ("work", "--without-join")]


def test_static_members_of_one_machine_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_text(f"{TEXT}log: {{kind: kafka, bootstrap_servers: ['a:1'], instance_id: east}}\n")
    named = commands(load_config(path, {}), (), 2)
    assert [command.environment.get("LEEWAY_LOG__INSTANCE_ID") for command in named] == [
        None, "east-join-1", "east-join-2", None,
    ]  # fmt: skip
