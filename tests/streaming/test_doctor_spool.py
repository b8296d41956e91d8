from __future__ import annotations

from pathlib import Path

import pytest

from streaming.config import Config, load_config
from streaming.doctor import Finding, Level, examine
from streaming.log import Message
from streaming.spool import Spool
from streaming.topics import DECISIONS
from streaming.up import announce

TEXT = """
version: 1
decision_points: {offers: {}}
log: {kind: kafka, bootstrap_servers: ['127.0.0.1:1'], spool_max_bytes: 2097152}
"""
NOW_MS = 10_000_000


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    path = tmp_path / "leeway.yaml"
    path.write_text(TEXT)
    monkeypatch.setattr("streaming.doctor._cluster", lambda *_: Finding(Level.PROBLEM, "kafka", "away"))
    return load_config(path, {})


def findings(config: Config) -> dict[str, Finding]:
    return {found.subject: found for found in examine(config, NOW_MS) if found.subject.startswith("spool")}


def fill(config: Config, count: int, age_s: int, size: int = 100) -> None:
    spool = Spool(config.spool_dir, max_bytes=2_097_152)
    spool.append([Message(DECISIONS, b"%d" % n, bytes(size), NOW_MS - 1_000 * age_s) for n in range(count)])
    spool.close()


def test_without_a_spool_there_is_nothing_to_say(config: Config) -> None:
    assert findings(config) == {}


def test_an_empty_spool_is_well(config: Config) -> None:
    fill(config, 0, 0)
    found = findings(config)["spool"]
    assert found.level is Level.OK
    assert found.words.startswith("no record waits for the cluster; 0.0 of 2 MiB")


def test_what_waits_is_counted_with_its_age_and_who_ships_it(config: Config) -> None:
    fill(config, 7, age_s=30)
    alone = findings(config)["spool"]
    assert alone.level is Level.WARNING
    assert alone.words.startswith("7 records wait for the cluster, the oldest for 30 s; 0.0 of 2 MiB are in use")
    assert "leeway up" in alone.words
    announce(config, "serve")
    assert findings(config)["spool"].level is Level.OK


def test_what_waits_for_long_is_a_warning(config: Config) -> None:
    fill(config, 7, age_s=600)
    announce(config, "serve")
    found = findings(config)["spool"]
    assert found.level is Level.WARNING
    assert "the oldest for 10.0 min" in found.words
    assert "brokers" in found.words


def test_a_nearly_full_spool_is_a_problem_and_says_what_comes(config: Config) -> None:
    fill(config, 480, age_s=1, size=4_000)
    announce(config, "serve")
    found = findings(config)["spool"]
    assert found.level is Level.PROBLEM
    assert "unrecorded" in found.words
    assert "log.spool_max_bytes" in found.words


def test_a_spool_that_was_moved_aside_is_a_problem_until_it_is_gone(config: Config) -> None:
    fill(config, 0, 0)
    for number in (1, 2):
        config.spool_dir.with_name(f"spool.damaged-{number}").mkdir()
    found = findings(config)
    assert found.keys() == {"spool", "spool.damaged-1", "spool.damaged-2"}
    assert found["spool.damaged-1"].level is Level.PROBLEM
    assert "docs/operating.md" in found["spool.damaged-1"].words
