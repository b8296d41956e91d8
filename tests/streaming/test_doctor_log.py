"""What the doctor reads from the log: a join that stands still, and dead letters; and that it only reads."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from engine.records import DEAD_LETTER_REASON_UNREADABLE, Decision
from streaming.config import Config, load_config
from streaming.dead_letters import dead_letter
from streaming.doctor import Finding, Level, examine
from streaming.joiner import JoinerRole
from streaming.log import Message, Record
from streaming.opening import open_log
from streaming.topics import OUTCOMES
from streaming.wire import message_of

TEXT = """
version: 1
decision_points: {offers: {reward: {window: 10m, grace: 0s}}}
log: {partitions: 1, fsync: false}
"""
NOW_MS = 10_000_000_000
MINUTE = 60_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "leeway.yaml"
    path.write_text(TEXT)
    return load_config(path, {})


def findings(config: Config, now_ms: int) -> dict[str, Finding]:
    return {found.subject: found for found in examine(config, now_ms)}


def decide(config: Config, *, deferred: bool = False) -> None:
    """Write a decision of ``NOW_MS``."""
    decision = Decision(decision_id="d", decision_point="offers", time_ms=NOW_MS, deferred=deferred)
    with closing(open_log(config)) as log:
        log.append([message_of(decision)])


def join(config: Config, now_ms: int) -> None:
    """Let the join do all that there is to do at a time."""
    points = {name: point.reward for name, point in config.points().items()}
    with closing(open_log(config)) as log, closing(JoinerRole(log, points, lambda: now_ms)) as role:
        while role.step():
            pass


def test_decisions_that_are_pending_long_after_their_window_are_a_problem(config: Config) -> None:
    decide(config)
    join(config, NOW_MS + MINUTE)
    # Nothing was done since, and nothing had to be: the window is open.
    assert "offers pending" not in findings(config, NOW_MS + 10 * MINUTE)
    found = findings(config, NOW_MS + 131 * MINUTE)["offers pending"]
    assert found.level is Level.PROBLEM
    assert found.words.startswith("1 decisions have no feedback, and their windows should have been closed 2.0 h ago")
    assert "messages of `work`" in found.words
    join(config, NOW_MS + 131 * MINUTE)
    assert "offers pending" not in findings(config, NOW_MS + 300 * MINUTE)


def test_a_single_old_decision_that_nobody_joins_is_a_warning(config: Config) -> None:
    decide(config)
    assert findings(config, NOW_MS + MINUTE)["join lag"].level is Level.OK
    found = findings(config, NOW_MS + 6 * MINUTE)["join lag"]
    assert found.level is Level.WARNING
    assert found.words.startswith("1 records behind, the oldest 6.0 min old")


def test_what_a_dead_letter_says_is_quoted_in_short_and_does_not_steer_the_terminal(config: Config) -> None:
    unreadable = Message(OUTCOMES, b"k", b"\xff", NOW_MS)
    with closing(open_log(config)) as log:
        log.append([unreadable])
    join(config, NOW_MS)  # it is in the book
    record = Record(OUTCOMES, 0, 1, NOW_MS + 1, b"k", b"\xff", ())
    said = f"the key \x1b[31m{'k' * 900} is none; write another"
    with closing(open_log(config)) as log:
        log.append([dead_letter(record, DEAD_LETTER_REASON_UNREADABLE, said)])
    found = findings(config, NOW_MS)["dead letters"]
    assert r"the last says unreadable: the key \x1b[31mkkk" in found.words
    assert found.words.endswith("kkk is none; write another")
    assert len(found.words) < 400


def test_the_doctor_makes_nothing(config: Config) -> None:
    config.log_dir.mkdir(parents=True)  # an older version may have left it
    assert findings(config, NOW_MS)["log"].level is Level.WARNING
    assert list(config.log_dir.iterdir()) == []


def test_a_log_with_other_partitions_than_configured_is_a_problem(config: Config) -> None:
    decide(config)
    more = config.model_copy(update={"log": config.log.model_copy(update={"partitions": 2})})
    found = findings(more, NOW_MS)["log"]
    assert found.level is Level.PROBLEM
    assert "has 1 partitions, not 2; set log.partitions to what there is" in found.words


def test_a_topic_that_is_gone_is_a_problem_and_is_not_made_again(config: Config) -> None:
    decide(config)
    lost = config.log_dir / "monitor.sqlite"
    lost.unlink()
    found = findings(config, NOW_MS)["log"]
    assert found.level is Level.PROBLEM
    assert "'alarms' does not exist" in found.words
    assert not lost.exists()


def test_what_was_never_activated_is_in_the_balance(config: Config) -> None:
    decide(config, deferred=True)
    join(config, NOW_MS)
    now_ms = NOW_MS + 11 * MINUTE
    join(config, now_ms)
    found = findings(config, now_ms)["offers join"]
    assert (found.level, found.words) == (
        Level.OK,
        "1 decisions = 0 with reward + 0 with the default + 0 pending + 1 never activated",
    )
