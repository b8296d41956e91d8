"""The archive role: every feedback in the archive once, whatever happens between two commits."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import training.archive.writer
from engine.errors import LogError
from engine.records import Feedback
from streaming.archive import ArchiveRole
from streaming.embedded import EmbeddedLog
from streaming.log import Message, Topic
from streaming.topics import ARCHIVE, FEEDBACK, JOIN
from tests.training.feedback import DAY_MS, NEW_YEAR_MS, POINT, feedbacks
from training.archive import ArchiveReader
from training.archive.manifest import Manifest, read_manifest, write_manifest

POINTS = {"offers": POINT}
PARTITIONS = 3


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.ms = NEW_YEAR_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = open_log(tmp_path / "log")
    yield log
    log.close()


def open_log(directory: Path) -> EmbeddedLog:
    log = EmbeddedLog(directory, fsync=False)
    log.create([Topic(FEEDBACK, JOIN, PARTITIONS)])
    return log


def publish(log: EmbeddedLog, rows: Sequence[Feedback]) -> None:
    log.append(
        [
            Message(FEEDBACK, row.decision.decision_id.encode(), row.SerializeToString(), row.decision.time_ms)
            for row in rows
        ]
    )


def ids(directory: Path) -> list[str]:
    return list(ArchiveReader(directory).read("offers", POINT, 0).decision_id)


def ids_of(rows: Sequence[Feedback]) -> list[str]:
    return [row.decision.decision_id for row in rows]


def drain(role: ArchiveRole, *, flush: bool = False) -> None:
    while role.step():
        pass
    if flush:
        role.flush()


def test_feedback_is_written_when_it_is_enough_or_old_enough(log: EmbeddedLog, tmp_path: Path) -> None:
    clock, archive, rows = Clock(), tmp_path / "archive", feedbacks(30)
    role = ArchiveRole(log, archive, POINTS, clock, max_rows=20, max_age_ms=1_000)
    publish(log, rows[:5])
    assert role.step() == 5
    clock.ms += 999
    assert role.step() == 0
    assert ids(archive) == []
    clock.ms += 1
    role.step()
    assert ids(archive) == ids_of(rows[:5])
    publish(log, rows[5:])
    drain(role)
    assert len(ids(archive)) == 25  # 20 at once; the last 5 wait
    assert sum(role.lag().values()) == 0
    role.close()
    assert ids(archive) == ids_of(rows)
    assert role.rows == {"offers": 30}


def test_large_records_are_written_before_there_are_many(log: EmbeddedLog, tmp_path: Path) -> None:
    archive, rows = tmp_path / "archive", feedbacks(30)
    size = sum(len(row.SerializeToString()) for row in rows)
    publish(log, rows)
    role = ArchiveRole(log, archive, POINTS, Clock(), max_bytes=size)
    drain(role)
    assert ids(archive) == ids_of(rows)
    role.close()


def test_a_restart_goes_on_where_the_manifest_says_and_not_the_group(log: EmbeddedLog, tmp_path: Path) -> None:
    archive, rows = tmp_path / "archive", feedbacks(40)
    publish(log, rows[:20])
    role = ArchiveRole(log, archive, POINTS, Clock(), max_rows=8)
    role.step()
    role.close()
    consumer = log.consumer(ARCHIVE, [FEEDBACK])
    while consumer.poll():
        pass
    consumer.commit()  # the group believes that all was archived
    consumer.close()
    publish(log, rows[20:])
    role = ArchiveRole(log, archive, POINTS, Clock(), max_rows=8)
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows)
    assert log.committed(ARCHIVE) == {
        partition: log.ends(FEEDBACK)[partition.partition] for partition in log.committed(ARCHIVE)
    }


def test_what_another_member_has_read_is_read_again(log: EmbeddedLog, tmp_path: Path) -> None:
    archive, rows = tmp_path / "archive", feedbacks(20)
    publish(log, rows)
    other = log.consumer(ARCHIVE, [FEEDBACK])
    assert len(other.poll()) == 20
    role = ArchiveRole(log, archive, POINTS, Clock())
    assert role.step() == 0
    other.commit()
    other.close()
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows)


def test_what_is_in_memory_when_partitions_move_is_archived_once(log: EmbeddedLog, tmp_path: Path) -> None:
    archive, rows = tmp_path / "archive", feedbacks(30)
    publish(log, rows)
    log.create([Topic("small", JOIN, 1)])
    other = log.consumer(ARCHIVE, ["small"])  # a group shares out numbers: this member holds 0, of all topics
    other.poll()
    role = ArchiveRole(log, archive, POINTS, Clock())
    assert 0 < role.step() < 30
    other.close()
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows)


def test_a_lost_archive_is_built_again_from_the_log(log: EmbeddedLog, tmp_path: Path) -> None:
    rows = feedbacks(20)
    publish(log, rows)
    for archive in (tmp_path / "archive", tmp_path / "new"):
        role = ArchiveRole(log, archive, POINTS, Clock())
        drain(role)
        role.close()
    assert ids(tmp_path / "new") == ids_of(rows)


@pytest.mark.parametrize("committed", [False, True], ids=["nothing committed", "committed all the same"])
def test_after_a_disk_error_every_row_is_there_once(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    archive, rows = tmp_path / "archive", feedbacks(40)
    publish(log, rows)
    role = ArchiveRole(log, archive, POINTS, Clock(), max_rows=15)
    role.step()

    def refuse(directory: Path, manifest: Manifest) -> None:
        if committed:
            write_manifest(directory, manifest)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.archive.writer, "write_manifest", refuse)
    for _ in range(3):
        with pytest.raises(LogError, match="make room"):
            drain(role, flush=True)
        if committed:
            break
    monkeypatch.undo()
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows)


def test_a_role_whose_disk_refuses_says_so_at_each_step_until_it_has_written(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, rows = tmp_path / "archive", feedbacks(40)
    publish(log, rows)
    clock = Clock()
    role = ArchiveRole(log, archive, POINTS, clock)

    def refuse(directory: Path, manifest: Manifest) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.archive.writer, "write_manifest", refuse)
    role.step()
    clock.ms += 5_000
    for _ in range(4):  # reading alone would be no sign that it works again
        with pytest.raises(LogError, match="make room"):
            role.step()
    monkeypatch.undo()
    role.step()
    assert ids(archive) == ids_of(rows)
    role.close()


def test_bytes_that_are_no_feedback_do_not_stop_the_line(
    log: EmbeddedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, rows = tmp_path / "archive", feedbacks(10)
    rows[3].decision.decision_point = "removed"
    publish(log, rows[:5])
    log.append([Message(FEEDBACK, b"x", b"\xff\xff\xff", 0), Message(FEEDBACK, b"x", None, 0)])
    publish(log, rows[5:])
    role = ArchiveRole(log, archive, POINTS, Clock())
    drain(role)
    role.close()
    assert ids(archive) == ids_of([row for i, row in enumerate(rows) if i != 3])
    assert role.skipped == 3
    assert role.rows == {"offers": 9}
    assert "is no feedback; skipped" in caplog.text
    assert "offers-000003 is not archived: decision point 'removed' is not configured" in caplog.text
    manifest = read_manifest(archive)
    assert manifest is not None
    assert manifest.offsets == {number: end for number, end in log.ends(FEEDBACK).items() if end}


def test_a_feedback_that_cannot_be_is_left_out_alone(
    log: EmbeddedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, rows = tmp_path / "archive", feedbacks(10)
    rows[2].decision.fallback = 77  # type: ignore[assignment]
    rows[4].decision.chosen = -1
    rows[6].reward = float("nan")
    publish(log, rows)
    role = ArchiveRole(log, archive, POINTS, Clock())
    drain(role)
    role.close()
    assert ids(archive) == ids_of([row for i, row in enumerate(rows) if i not in (2, 4, 6)])
    assert role.skipped == 3
    for name in ("offers-000002", "offers-000004", "offers-000006"):
        assert f"decision '{name}'" in caplog.text


def test_what_was_in_memory_when_the_log_failed_is_archived_once(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance takes a partition, the log fails in the middle of it, and then all is as it was before."""
    archive, rows = tmp_path / "archive", feedbacks(30)
    publish(log, rows[:20])
    role = ArchiveRole(log, archive, POINTS, Clock())
    assert role.step() == 20
    publish(log, rows[20:])
    consumer = role._consumer
    with monkeypatch.context() as patch:

        def away(_topic: str) -> dict[int, int]:
            raise LogError("broker away")

        fewer = frozenset(list(consumer.assignment())[1:])
        patch.setattr(consumer, "assignment", lambda: fewer)
        patch.setattr(log, "ends", away)
        with pytest.raises(LogError, match="broker away"):
            role.step()
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows)


def test_an_archive_of_another_log_is_refused(log: EmbeddedLog, tmp_path: Path) -> None:
    publish(log, feedbacks(20))
    role = ArchiveRole(log, tmp_path / "archive", POINTS, Clock())
    drain(role)
    role.close()
    other = open_log(tmp_path / "other")
    role = ArchiveRole(other, tmp_path / "archive", POINTS, Clock())
    with pytest.raises(LogError, match="it is another log; move the archive away"):
        role.step()
    with pytest.raises(LogError, match="it is another log"):
        role.step()
    role.close()
    other.close()


def test_files_are_merged_and_old_ones_deleted(log: EmbeddedLog, tmp_path: Path) -> None:
    clock, archive = Clock(), tmp_path / "archive"
    rows = feedbacks(100, start_ms=NEW_YEAR_MS - 10 * DAY_MS) + feedbacks(100, first=100)
    publish(log, rows)
    role = ArchiveRole(log, archive, POINTS, clock, max_rows=5, retention_ms=2 * DAY_MS)
    drain(role)
    role.close()
    assert ids(archive) == ids_of(rows[100:])
    assert len(list(archive.rglob("*.parquet"))) <= 16


# The child archives, and kills itself without warning before a given operation on the archive's files.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from streaming.archive import ArchiveRole
from tests.streaming.test_archive import POINTS, open_log

directory, left = Path(sys.argv[1]), int(sys.argv[2])

def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(directory / "archive") in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

log = open_log(directory / "log")
sys.addaudithook(count)
role = ArchiveRole(log, directory / "archive", POINTS, lambda: int(time.time() * 1000), max_rows=10)
while role.step():
    pass
role.close()
"""


def test_kill_9_loses_and_repeats_nothing(tmp_path: Path) -> None:
    rows = feedbacks(900, step_ms=120_000)  # on two days
    log = open_log(tmp_path / "log")
    publish(log, rows[:600])
    rng = random.Random(20_260_101)

    def run(operations: int) -> int:
        command = [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path), str(operations)]
        return subprocess.run(
            command, check=False, timeout=60, env={**os.environ, "PYTHONPATH": os.getcwd()}
        ).returncode

    archived = []
    for _ in range(8):
        assert run(rng.randint(20, 200)) == -signal.SIGKILL
        archived.append(len(ids(tmp_path / "archive")))
        if len(archived) == 4:
            publish(log, rows[600:])
    assert archived == sorted(archived)
    assert len(set(archived)) > 4  # the kills hit at work, not at rest
    assert run(10**9) == 0
    assert ids(tmp_path / "archive") == ids_of(rows)
    manifest = read_manifest(tmp_path / "archive")
    assert manifest is not None
    assert manifest.offsets == log.ends(FEEDBACK)
    assert not list(tmp_path.rglob("*.tmp"))
    listed = sorted(part.path for part in manifest.parts)
    assert sorted(str(path.relative_to(tmp_path / "archive")) for path in tmp_path.rglob("*.parquet")) == listed
    log.close()
