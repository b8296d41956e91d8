"""``leeway dlq`` and ``leeway schema`` as an operator meets them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from engine.records import (
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNREADABLE,
    DeadLetterReason,
    Outcome,
)
from streaming.cli import main
from streaming.config import load_config, log_environment
from streaming.dead_letters import dead_letter
from streaming.log import Log, Message, Record
from streaming.opening import open_log
from streaming.serve import now_ms
from streaming.topics import DEAD_LETTERS, OUTCOMES
from streaming.up import announce, withdraw
from streaming.wire import message_of
from tests.integration.service import leeway, settings

HOUR_MS = 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration, and below it a log of one partition."""
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump(settings() | {"log": {"partitions": 1}}))
    return path


def run(*arguments: str | Path) -> Result:
    """Run a command in this process: starting one takes longer than what it does."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@contextmanager
def opened(path: Path) -> Iterator[Log]:
    with closing(open_log(load_config(path, {}))) as log:
        yield log


def put_aside(
    path: Path, message: Message, reason: DeadLetterReason.ValueType, detail: str = "why", topic: str = OUTCOMES
) -> None:
    record = Record(topic, 0, 11, message.timestamp_ms, message.key, message.value, message.headers)
    with opened(path) as log:
        log.append([dead_letter(record, reason, detail)])


def outcome(name: str, age_ms: int = 0) -> Message:
    return message_of(Outcome(decision_id=name, outcome_id="o", value=0.5, time_ms=now_ms() - age_ms))


@pytest.fixture
def filled(path: Path) -> Path:
    """Three letters: an old unknown decision, JSON with a wrong key, and bytes that are nothing."""
    put_aside(path, outcome("old", 3 * HOUR_MS), DEAD_LETTER_REASON_UNKNOWN_DECISION, "no decision 'old'")
    json_form = (("content-type", b"application/json"), ("trace", b"t-1"))
    text = b'{"value": 1, "time_ms": 5, "valu": 2}'
    put_aside(path, Message(OUTCOMES, b"new", text, now_ms() - HOUR_MS // 2, json_form), DEAD_LETTER_REASON_UNREADABLE)
    noise = Message(OUTCOMES, b"\x1b[31m\xff", b"\xff\x00", now_ms())
    put_aside(path, noise, DEAD_LETTER_REASON_UNREADABLE, "steers \x1b[2J")
    return path


def listed(path: Path, *options: str) -> list[dict[str, Any]]:
    ran = run("dlq", "list", "--json", "--config", path, *options)
    assert (ran.exit_code, ran.stderr) == (0, "")
    letters: list[dict[str, Any]] = json.loads(ran.stdout)
    return letters


def places(path: Path, *options: str) -> list[str]:
    return [letter["letter"] for letter in listed(path, *options)]


def replayed(path: Path, *arguments: str) -> tuple[int, str, str]:
    ran = run("dlq", "replay", "--config", path, *arguments)
    return ran.exit_code, ran.stdout, ran.stderr


def outcomes_of(path: Path) -> list[Record]:
    with opened(path) as log:
        return log.read(OUTCOMES, 0)


def test_letters_are_listed_with_place_time_reason_and_detail(filled: Path) -> None:
    letters = listed(filled)
    assert [letter["letter"] for letter in letters] == ["0:0", "0:1", "0:2"]
    assert letters[0] == {
        "letter": "0:0", "reason": "unknown_decision", "detail": "no decision 'old'", "topic": "outcomes",
        "partition": 0, "offset": 11, "timestamp_ms": letters[0]["timestamp_ms"], "key": "old",
    }  # fmt: skip
    ran = run("dlq", "list", "--config", filled)
    first, _, last = ran.stdout.splitlines()
    assert first.startswith("0:0  20")
    assert first.endswith("Z  unknown_decision  from outcomes 0:11, key old: no decision 'old'")
    assert last.endswith(r"key \x1b[31m\xff: steers \x1b[2J")
    assert ran.stderr == "3 dead letters\n"


def test_letters_are_chosen_by_reason_age_and_number(filled: Path) -> None:
    assert places(filled, "--reason", "unreadable") == ["0:1", "0:2"]
    assert places(filled, "--since", "1h") == ["0:1", "0:2"]
    assert places(filled, "--limit", "1") == ["0:2"]
    assert places(filled, "--reason", "invalid") == []
    assert "1 dead letters; there are older ones" in run("dlq", "list", "--config", filled, "--limit", "1").stderr


def test_an_empty_list_says_so(path: Path) -> None:
    with opened(path):
        pass
    ran = run("dlq", "list", "--config", path)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "", "no dead letters\n")
    assert replayed(path, "--all")[:2] == (0, "replayed 0 records\n")


def test_where_there_is_no_log_that_is_said_and_none_is_made(path: Path) -> None:
    for command in (["list"], ["show", "0:0"], ["replay", "--all"]):
        ran = run("dlq", *command, "--config", path)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "there is no log yet at" in ran.stderr
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_process_that_uses_another_log_is_named_with_what_to_add(path: Path) -> None:
    cluster = load_config(path, log_environment("kafka://a:9092"))
    announce(cluster, "serve", port=1)
    for command in (
        ["dlq", "list"],
        ["dlq", "show", "0:0"],
        ["dlq", "replay", "--all"],
        ["replay"],
        ["doctor"],
        ["retrain"],
    ):
        ran = run(*command, "--config", path)
        assert (ran.exit_code, ran.stdout) == (2, ""), command
        assert f"the embedded log at {cluster.log_dir}, but `leeway serve` (pid {os.getpid()})" in ran.stderr
        assert "uses the kafka log at kafka://a:9092; add: --log kafka://a:9092\n" in ran.stderr
    assert not cluster.log_dir.exists()
    withdraw(cluster, "serve")
    assert "there is no log yet" in run("dlq", "list", "--config", path).stderr


def test_a_long_key_is_shortened_for_people_and_whole_for_programs(path: Path) -> None:
    put_aside(path, Message(OUTCOMES, b"k" * 1_000_000, b"v", now_ms()), DEAD_LETTER_REASON_UNREADABLE, "why")
    (line,) = run("dlq", "list", "--config", path).stdout.splitlines()
    assert line.endswith(f"key {'k' * 40}...{'k' * 37}: why")
    assert len(listed(path)[0]["key"]) == 1_000_000


def test_show_prints_everything(filled: Path) -> None:
    def shown(place: str) -> dict[str, Any]:
        ran = run("dlq", "show", place, "--config", filled)
        assert (ran.exit_code, ran.stderr) == (0, "")
        letter: dict[str, Any] = json.loads(ran.stdout)
        return letter

    old, text, noise = (shown(f"0:{n}") for n in range(3))
    assert old["value"]["decision_id"] == "old"
    assert old["value"]["value"] == 0.5
    assert dict(old["headers"])["ce_id"] == "old/o"
    assert text["problem"].startswith("valu: unknown key; did you mean value?")
    assert ["trace", "t-1"] in text["headers"]
    assert base64.b64decode(noise["value_base64"]) == b"\xff\x00"
    assert noise["detail"] == "steers \x1b[2J"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["show", "0:99"], 1, "letter 0:99: is not there; it never was, or has outlived log.retention"),
        (["show", "7:0"], 1, "letter 7:0: there are partitions 0 to 0 alone"),
        (["show", "17"], 2, "'17' names no letter; write PARTITION:OFFSET"),
        (["list", "--since", "yesterday"], 2, "'yesterday' is no duration"),
        (["list", "--reason", "mood"], 2, "unknown_decision"),
        (["replay"], 2, "name the letters in one way"),
        (["replay", "--all", "0:1"], 2, "name the letters in one way"),
        (["replay", "0:0", "0:99"], 1, "letter 0:99: is not there"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_changed(
    filled: Path, arguments: list[str], status: int, words: str
) -> None:
    ran = run("dlq", *arguments, "--config", filled)
    assert (ran.exit_code, ran.stdout) == (status, "")
    assert words in " ".join(ran.stderr.split())
    assert outcomes_of(filled) == []


def test_all_are_replayed_once(filled: Path) -> None:
    assert replayed(filled, "--all", "--dry-run") == (0, "would replay 3 to outcomes\n", "")
    assert outcomes_of(filled) == []
    assert replayed(filled, "--all") == (0, "replayed 3 to outcomes\n", "")
    with opened(filled) as log:
        letters = log.read(DEAD_LETTERS, 0)
    for letter, record in zip(letters, outcomes_of(filled), strict=True):
        assert (record.key, record.value, record.timestamp_ms) == (letter.key, letter.value, letter.timestamp_ms)
        assert tuple(record.headers) == tuple(letter.headers)[:-6]
    assert replayed(filled, "--all") == (0, "replayed 0 records\n", "")
    put_aside(filled, outcome("newer"), DEAD_LETTER_REASON_UNKNOWN_DECISION)
    assert replayed(filled, "--all") == (0, "replayed 1 to outcomes\n", "")


def test_one_reason_or_one_letter_is_replayed(filled: Path) -> None:
    assert replayed(filled, "--reason", "unknown_decision") == (0, "replayed 1 to outcomes\n", "")
    assert replayed(filled, "0:1", "0:2", "0:1") == (0, "replayed 2 to outcomes\n", "")
    assert [record.key for record in outcomes_of(filled)] == [b"old", b"new", b"\x1b[31m\xff"]


def test_letters_of_other_topics_are_refused_by_name_and_passed_over_with_all(filled: Path) -> None:
    put_aside(filled, outcome("theirs"), DEAD_LETTER_REASON_UNREADABLE, topic="orders")
    status, printed, problem = replayed(filled, "0:0", "0:3")
    assert (status, printed) == (1, "")
    assert "letter 0:3 comes from topic 'orders'" in problem
    assert outcomes_of(filled) == []
    assert replayed(filled, "--all") == (
        0, "replayed 3 to outcomes\n", "1 letters passed over: they do not come from decisions or outcomes\n"
    )  # fmt: skip


def test_the_schema_is_printed() -> None:
    ran = leeway("schema", "outcome")  # as a process of its own, as all is run
    assert ran.returncode == 0
    assert run("schema").stdout == ran.stdout
    validator = jsonschema.Draft202012Validator(json.loads(ran.stdout))
    assert validator.is_valid({"value": 1, "time": "2026-01-01T12:00:00Z"})
    assert not validator.is_valid({"value": "1", "time": "2026-01-01T12:00:00Z"})
