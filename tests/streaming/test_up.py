from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from streaming.config import Config, KafkaLogConfig, load_config
from streaming.up import (
    announce,
    announce_joiner,
    commands,
    hold_role,
    joiners,
    refuse_other_log,
    run_file,
    whereabouts,
    withdraw,
)

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


def on_kafka(config: Config, *servers: str, prefix: str = "") -> Config:
    log = KafkaLogConfig.model_validate({"kind": "kafka", "bootstrap_servers": servers, "topic_prefix": prefix})
    return config.model_copy(update={"log": log})


def test_a_run_file_names_the_log_and_no_password(config: Config) -> None:
    said = {"kind": "kafka", "bootstrap_servers": ["a:1", "b:2"], "topic_prefix": "east-"}
    security = {"protocol": "sasl_ssl", "username": "me", "password": "hunter2"}
    log = KafkaLogConfig.model_validate({**said, "security": security})
    announce(config.model_copy(update={"log": log}), "serve")
    facts = whereabouts(config, "serve")
    assert facts is not None
    assert facts["log"] == {"kind": "kafka", "address": "kafka://a:1,b:2", "topic_prefix": "east-"}
    assert "hunter2" not in run_file(config, "serve").read_text()


def test_who_uses_the_log_of_the_running_processes_is_let_through(config: Config) -> None:
    refuse_other_log(config)  # nothing runs
    announce(config, "serve")
    refuse_other_log(config)
    announce(on_kafka(config, "a:1", "b:1"), "serve")
    refuse_other_log(on_kafka(config, "b:1", "c:1"))  # a cluster may be named by any of its brokers
    run_file(config, "serve").write_text('{"pid": 1}')  # of another version
    refuse_other_log(config)


@pytest.mark.parametrize(
    ("theirs", "ours", "remedy"),
    [
        ("a:1", None, "add: --log kafka://a:1"),
        ("a:1", "b:1", "add: --log kafka://a:1"),
        (None, "a:1", "leave --log out, and set log.kind to embedded"),
    ],
)
def test_who_would_use_another_log_is_refused(
    config: Config, theirs: str | None, ours: str | None, remedy: str
) -> None:
    announce_joiner(config if theirs is None else on_kafka(config, theirs))  # one process is enough
    with pytest.raises(ConfigError, match=r"`leeway join` \(pid \d+\)") as refused:
        refuse_other_log(config if ours is None else on_kafka(config, ours))
    assert str(refused.value).endswith(remedy)


def test_another_prefix_is_another_log(config: Config) -> None:
    announce(on_kafka(config, "a:1", prefix="east-"), "work")
    with pytest.raises(ConfigError, match=r"with topic_prefix 'east-'; .* and set log.topic_prefix to 'east-'$"):
        refuse_other_log(on_kafka(config, "a:1"))


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
