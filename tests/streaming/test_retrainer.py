from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Alarm, Generation, GenerationStatistics
from streaming.embedded import EmbeddedLog
from streaming.log import Message
from streaming.retrainer import TRY_AGAIN_MS, RetrainerRole
from streaming.topics import ALARMS, GENERATIONS, MONITOR_STATE
from tests.streaming.samples import NAME, POINT, Clock, opened
from training.archive import ArchiveReader
from training.config import RollbackConfig
from training.job import ExitCode
from training.schedule import RetrainRequest


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


class Archive(ArchiveReader):
    """Says how much there is."""

    rows = 0

    def count(self, point: str, since_ms: int, until_ms: int | None = None) -> int:
        return self.rows


class Jobs:
    """Starts processes that end with a given status."""

    def __init__(self) -> None:
        self.requests: list[RetrainRequest | None] = []
        self.status = 0
        self.last: subprocess.Popen[bytes] | None = None

    def __call__(self, request: RetrainRequest | None) -> subprocess.Popen[bytes]:
        self.requests.append(request)
        self.last = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({self.status})"])
        return self.last

    @property
    def asked(self) -> list[RetrainRequest]:
        return [request for request in self.requests if request is not None]


def run(role: RetrainerRole, jobs: Jobs, clock: Clock, seconds: int = 1) -> None:
    """Let time pass, each job ending before the next second."""
    for _ in range(seconds):
        clock.now_ms += 1_000
        role.step()
        assert jobs.last is not None
        jobs.last.wait(30)
        role.step()


def alarm(log: EmbeddedLog, change_ms: int) -> None:
    record = Alarm(decision_point=NAME, change_ms=change_ms, detected_ms=change_ms + 50, calls_for_retraining=True)
    log.append([Message(ALARMS, NAME.encode(), record.SerializeToString(), 0)])


def start(log: EmbeddedLog, jobs: Jobs, clock: Clock, archive: Archive) -> RetrainerRole:
    role = RetrainerRole(log, {NAME: POINT}, archive, jobs, clock)
    run(role, jobs, clock)
    return role


def test_it_makes_the_registry_ready_and_then_waits_to_be_asked(log: EmbeddedLog, tmp_path: Path) -> None:
    jobs, clock = Jobs(), Clock()
    role = start(log, jobs, clock, Archive(tmp_path))
    run(role, jobs, clock, 3)
    assert jobs.requests == [None]


def test_an_alarm_starts_a_job_once_there_is_enough_since_the_change(log: EmbeddedLog, tmp_path: Path) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    role = start(log, jobs, clock, archive)
    alarm(log, change_ms=7_000)
    archive.rows = 9
    run(role, jobs, clock, 2)
    assert jobs.asked == []
    archive.rows = 10
    run(role, jobs, clock, 3)
    assert jobs.asked == [RetrainRequest(NAME, "drift", 7_000)]


def test_a_restart_remembers_the_request_and_a_promotion_ends_it(log: EmbeddedLog, tmp_path: Path) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    alarm(log, change_ms=7_000)
    archive.rows = 10
    first = start(log, jobs, clock, archive)
    run(first, jobs, clock)
    assert [request.since_ms for request in jobs.asked] == [7_000]
    done = Generation(decision_point=NAME, generation=1, promoted=True, trained_ms=8_000, window_start_ms=7_000)
    log.append([Message(GENERATIONS, NAME.encode(), done.SerializeToString(), 0)])
    later = Jobs()
    role = start(log, later, clock, archive)
    run(role, later, clock, 3)
    assert later.asked == []


@pytest.mark.parametrize(("status", "again"), [(ExitCode.RETRYABLE, True), (ExitCode.REFUSED, False)])
def test_what_failed_in_passing_is_tried_again_soon(
    log: EmbeddedLog, tmp_path: Path, status: ExitCode, again: bool
) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    jobs.status = status
    alarm(log, change_ms=7_000)
    archive.rows = 10
    role = start(log, jobs, clock, archive)
    run(role, jobs, clock, 5)
    assert len(jobs.asked) == 1
    clock.now_ms += TRY_AGAIN_MS
    run(role, jobs, clock)
    assert len(jobs.asked) == 1 + again


def test_foreign_bytes_are_named_and_the_alarm_behind_them_is_heard(
    log: EmbeddedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    for topic in (ALARMS, GENERATIONS):
        log.append([Message(topic, None, b"\x00\xffgarbage", 0)])
    alarm(log, change_ms=7_000)
    archive.rows = 10
    role = start(log, jobs, clock, archive)
    run(role, jobs, clock)
    assert jobs.asked == [RetrainRequest(NAME, "drift", 7_000)]
    assert f"{ALARMS}/0@0 is no alarm; skipped" in caplog.text
    assert f"{GENERATIONS}/0@0 is no generation; skipped" in caplog.text


def test_what_was_asked_for_is_not_forgotten_when_no_process_can_be_started(log: EmbeddedLog, tmp_path: Path) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    full = [OSError(11, "Resource temporarily unavailable")]

    def launch(request: RetrainRequest | None) -> subprocess.Popen[bytes]:
        if request is not None and full:
            raise full.pop()
        return jobs(request)

    role = RetrainerRole(log, {NAME: POINT}, archive, launch, clock)
    run(role, jobs, clock)
    alarm(log, change_ms=7_000)
    archive.rows = 10
    with pytest.raises(OSError, match="temporarily unavailable"):
        run(role, jobs, clock)
    clock.now_ms += TRY_AGAIN_MS
    run(role, jobs, clock)
    assert jobs.asked == [RetrainRequest(NAME, "drift", 7_000)]


def test_each_decision_point_that_failed_in_passing_is_tried_again(log: EmbeddedLog, tmp_path: Path) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    jobs.status = ExitCode.RETRYABLE
    archive.rows = 10
    for name in (NAME, "other"):
        record = Alarm(decision_point=name, change_ms=7_000, detected_ms=7_050, calls_for_retraining=True)
        log.append([Message(ALARMS, name.encode(), record.SerializeToString(), 0)])
    role = RetrainerRole(log, {NAME: POINT, "other": POINT}, archive, jobs, clock)
    run(role, jobs, clock, 4)
    assert [request.point for request in jobs.asked] == [NAME, "other"]
    clock.now_ms += TRY_AGAIN_MS
    run(role, jobs, clock, 3)
    assert [request.point for request in jobs.asked[2:]] == [NAME, "other"]


def test_the_end_of_a_job_is_not_missed_when_the_log_fails_just_then(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, clock, archive = Jobs(), Clock(), Archive(tmp_path)
    role = start(log, jobs, clock, archive)
    alarm(log, change_ms=7_000)
    archive.rows = 10
    jobs.status = ExitCode.RETRYABLE
    clock.now_ms += 1_000
    role.step()
    assert jobs.last is not None
    jobs.last.wait(30)
    with monkeypatch.context() as patch:

        def away(*_arguments: object) -> None:
            raise LogError("broker away")

        patch.setattr(log, "read", away)
        with pytest.raises(LogError, match="broker away"):
            role.step()
    role.step()
    clock.now_ms += TRY_AGAIN_MS
    run(role, jobs, clock)
    assert len(jobs.asked) == 2


def test_a_champion_that_disappoints_is_rolled_back_where_that_is_enabled(log: EmbeddedLog, tmp_path: Path) -> None:
    undone: list[str] = []

    def undo(point: str) -> subprocess.Popen[bytes]:
        undone.append(point)
        return subprocess.Popen([sys.executable, "-c", "pass"])

    entry = Generation(decision_point=NAME, generation=1, promoted=True, run_id="r", estimate=0.8, estimate_error=0.01)
    log.append([Message(GENERATIONS, NAME.encode(), entry.SerializeToString(), 0)])
    book = GenerationStatistics(decision_point=NAME, generation=1, feedback=5_000, reward_sum=3_900.0)
    key = f"generation/{NAME}/1".encode()
    log.append([Message(MONITOR_STATE, key, book.SerializeToString(), 0)])
    rollback = POINT.retraining.model_copy(update={"rollback": RollbackConfig(enabled=True)})
    points = {
        "enabled": POINT.model_copy(update={"retraining": rollback}),
        "disabled": POINT,
    }
    for name in points:
        jobs, clock = Jobs(), Clock()
        role = RetrainerRole(log, {NAME: points[name]}, Archive(tmp_path), jobs, clock, undo=undo)
        run(role, jobs, clock, 3)
        assert undone == []  # it earns nearly what was estimated
        role.close()
    book.reward_sum = 3_000.0
    log.append([Message(MONITOR_STATE, key, book.SerializeToString(), 0)])
    jobs, clock = Jobs(), Clock()
    role = RetrainerRole(log, {NAME: points["enabled"]}, Archive(tmp_path), jobs, clock, undo=undo)
    run(role, jobs, clock, 3)
    assert undone == [NAME]
    role.close()
