"""What the embedded log promises beyond the contract: crashes, full disks, damaged files, retention."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LogError
from streaming.embedded import EmbeddedLog
from streaming.embedded_file import FORMAT
from streaming.embedded_rows import EXPIRE_BATCH
from streaming.log import Message, Record, Topic, TopicPartition
from tests.streaming.format_one import write_format_one

DECISIONS = Topic("decisions", "serving", 2, retention_ms=1_000)
FEEDBACK = Topic("feedback", "join", 2, retention_ms=1_000)
STATE = Topic("state", "join", 2, compacted=True)
TOPICS = [DECISIONS, FEEDBACK, STATE]
DAY_MS = 86_400_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        log.create(TOPICS)
        yield log


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own; it and its children are killed at the end if they still run."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def contents(log: EmbeddedLog, topic: Topic) -> list[Record]:
    records: list[Record] = []
    for partition in range(topic.partitions):
        start = 0
        while batch := log.read(topic.name, partition, start):
            records += batch
            start = batch[-1].offset + 1
    return records


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not become true")


# ---- processes


WRITER = """
import sys
from pathlib import Path
from streaming.embedded import EmbeddedLog
from streaming.log import Message, TopicPartition

log = EmbeddedLog(Path(sys.argv[1]))
step = int(sys.argv[2])
while True:
    with log.transaction("join") as transaction:
        for part in range(3):
            transaction.send(Message("feedback", b"%d" % (step * 3 + part), b"%d" % step, step))
        transaction.send(Message("state", b"step", b"%d" % step, step, partition=0))
        transaction.send(Message("state", b"gone", None if step % 2 else b"%d" % step, step, partition=0))
        transaction.commit_offsets({TopicPartition("decisions", 0): step + 1})
    print(step, flush=True)
    step += 1
"""


def test_kill_9_keeps_every_acknowledged_transaction_whole_and_once(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with closing(EmbeddedLog(directory)) as log:
        log.create(TOPICS)
    rng = random.Random(7)
    done = 0
    for _ in range(10):
        with process(WRITER, directory, done) as child:
            for _ in range(rng.randrange(1, 30)):
                acknowledged = int(line(child))
            time.sleep(rng.random() * 0.005)
            child.send_signal(signal.SIGKILL)
        with closing(EmbeddedLog(directory)) as log:
            records = contents(log, FEEDBACK)
            steps = sorted(int(record.value or b"") for record in records)
            done = steps[-1] + 1
            assert done > acknowledged
            assert steps == [step for step in range(done) for _ in range(3)]
            assert len({record.key for record in records}) == 3 * done
            state = {record.key: record.value for record in contents(log, STATE)}
            last_even = done - 1 if done % 2 else None
            gone = {} if last_even is None else {b"gone": b"%d" % last_even}
            assert state == {b"step": b"%d" % (done - 1), **gone}
            assert log.committed("join") == {TopicPartition("decisions", 0): done}


HOLDER = """
import os, sys, time
from pathlib import Path
from streaming.embedded import EmbeddedLog

log = EmbeddedLog(Path(sys.argv[1]))
consumer = log.consumer("join", ["decisions"])
records = consumer.poll()
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(3_600)
print(len(consumer.assignment()), len(records), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fork", ["alone", "fork"])
def test_a_member_takes_over_when_another_is_killed(log: EmbeddedLog, tmp_path: Path, fork: str) -> None:
    log.append([Message("decisions", b"%d" % n, b"", n) for n in range(10)])
    with process(HOLDER, tmp_path / "log", fork) as child:
        assert line(child) == "2 10"
        standby = log.consumer("join", ["decisions"])
        assert standby.poll(timeout_s=0.05) == []
        assert standby.assignment() == frozenset()
        child.send_signal(signal.SIGKILL)
        child.wait()
        # A child that the killed process had forked is still alive in one of the two cases, and holds nothing.
        eventually(lambda: len(standby.poll()) == 10)
    assert len(standby.assignment()) == 2


def test_a_member_that_cannot_read_its_offsets_keeps_no_partition(log: EmbeddedLog, tmp_path: Path) -> None:
    file = tmp_path / "log" / "archive.sqlite"
    file.write_bytes(b"damaged")
    consumer = log.consumer("archive", ["decisions"])
    with pytest.raises(LogError, match=r"archive\.sqlite"):
        consumer.poll()
    file.unlink()
    other = log.consumer("archive", ["decisions"])
    other.poll()
    assert len(other.assignment()) == 2


def test_a_log_does_not_pass_through_a_fork(log: EmbeddedLog) -> None:
    log.append([Message("decisions", b"k", b"", 0)])
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        try:
            contents(log, DECISIONS)
        except LogError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end) as pipe:
        assert "opened before a fork; open it in the child" in pipe.read()
    os.wait()
    assert len(contents(log, DECISIONS)) == 1


CREATOR = """
import sys, time
from pathlib import Path
from streaming.embedded import EmbeddedLog
from streaming.log import Message
from tests.streaming.test_embedded import TOPICS

directory, me = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while not (directory / "go").exists():
    time.sleep(0.001)
log = EmbeddedLog(directory / "log")
log.create(TOPICS)
for number in range(20):
    log.append([Message("decisions", b"%d" % me, b"%d %d" % (me, number), 0) for _ in range(2)])
print("done", flush=True)
"""


def test_processes_may_create_and_append_at_once(tmp_path: Path) -> None:
    with process(CREATOR, tmp_path, 0) as a, process(CREATOR, tmp_path, 1) as b, process(CREATOR, tmp_path, 2) as c:
        assert [line(child) for child in (a, b, c)] == ["ready"] * 3
        (tmp_path / "go").touch()
        assert [line(child) for child in (a, b, c)] == ["done"] * 3
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        records = contents(log, DECISIONS)
        assert sum(log.ends("decisions").values()) == len(records) == 120
        for me in range(3):
            mine = [int((record.value or b"").split()[1]) for record in records if record.key == b"%d" % me]
            assert mine == [number for number in range(20) for _ in range(2)]


def test_threads_share_a_log(log: EmbeddedLog) -> None:
    def write(me: int) -> None:
        for number in range(20):
            log.append([Message("decisions", b"%d" % me, b"%d" % number, 0)])
            contents(log, DECISIONS)

    threads = [threading.Thread(target=write, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = contents(log, DECISIONS)
    assert len(records) == 80
    for me in range(4):
        mine = [int(record.value or b"") for record in records if record.key == b"%d" % me]
        assert mine == list(range(20))


def test_no_writer_waits_for_another_and_no_reader_for_any(log: EmbeddedLog, tmp_path: Path) -> None:
    log.append([Message("decisions", b"k", b"v", 0)])
    with closing(sqlite3.connect(tmp_path / "log" / "join.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the join is in the midst of a long commit
        log.append([Message("decisions", b"k", b"v", 0)])
        assert len(contents(log, DECISIONS)) == 2
        assert contents(log, FEEDBACK) == []
        other.execute("ROLLBACK")


def test_every_partition_has_its_share_of_a_poll(log: EmbeddedLog) -> None:
    log.append([Message("decisions", None, b"", 0, partition=0) for _ in range(500)])
    log.append([Message("decisions", None, b"", 0, partition=1) for _ in range(20)])
    log.append([Message("feedback", None, b"", 0, partition=1) for _ in range(60)])
    consumer = log.consumer("join", ["decisions", "feedback"])
    shares = Counter((record.topic, record.partition) for record in consumer.poll(max_records=100))
    # A quarter each; what the one with 20 and the empty one leave is shared by the others.
    assert shares == {("decisions", 0): 40, ("decisions", 1): 20, ("feedback", 1): 40}


def test_a_busy_partition_starves_no_other_even_one_record_at_a_time(log: EmbeddedLog) -> None:
    log.append([Message("decisions", None, b"", 0, partition=0) for _ in range(500)])
    log.append([Message("feedback", None, b"", 0, partition=1)])
    consumer = log.consumer("join", ["decisions", "feedback"])
    assert "feedback" in {record.topic for _ in range(4) for record in consumer.poll(max_records=1)}


def test_closing_ends_a_waiting_poll(log: EmbeddedLog) -> None:
    consumer = log.consumer("join", ["decisions"])
    thread = threading.Thread(target=lambda: consumer.poll(timeout_s=3_600.0))
    thread.start()
    eventually(lambda: len(consumer.assignment()) == 2)
    consumer.close()
    thread.join(timeout=30.0)
    assert not thread.is_alive()


def test_a_group_without_topics_has_a_file_once_it_commits(log: EmbeddedLog, tmp_path: Path) -> None:
    consumer = log.consumer("archive", ["decisions"])
    consumer.poll()
    assert not (tmp_path / "log" / "archive.sqlite").exists()
    consumer.commit()
    assert log.committed("archive") == {TopicPartition("decisions", 0): 0, TopicPartition("decisions", 1): 0}


# ---- retention and compaction


def test_retention_deletes_old_records_and_consumers_go_on(log: EmbeddedLog) -> None:
    log.append([Message("decisions", None, b"%d" % time_ms, time_ms, partition=0) for time_ms in range(100)])
    consumer = log.consumer("join", ["decisions"])
    assert len(consumer.poll(max_records=10)) == 10
    assert log.expire(1_000) == 0
    assert log.expire(1_040) == 40
    assert [record.offset for record in log.read("decisions", 0)] == list(range(40, 100))
    assert consumer.lag()[TopicPartition("decisions", 0)] == 60
    assert consumer.poll(max_records=1)[0].offset == 40


def test_offsets_go_on_after_everything_was_deleted(log: EmbeddedLog, tmp_path: Path) -> None:
    log.append([Message("decisions", None, b"", 0, partition=0) for _ in range(5)])
    assert log.expire(DAY_MS) == 5
    log.close()
    with closing(EmbeddedLog(tmp_path / "log")) as again:
        assert again.ends("decisions") == {0: 5, 1: 0}
        again.append([Message("decisions", None, b"", 0, partition=0)])
        assert [record.offset for record in again.read("decisions", 0)] == [5]


def test_a_record_from_the_future_does_not_keep_those_behind_it(log: EmbeddedLog) -> None:
    times = [0, 10**15, *range(1, 50)]
    log.append([Message("decisions", None, b"", time_ms, partition=1) for time_ms in times])
    assert log.expire(DAY_MS) == 50
    assert [record.timestamp_ms for record in log.read("decisions", 1)] == [10**15]


def test_a_call_deletes_a_bounded_number(log: EmbeddedLog) -> None:
    log.append([Message("decisions", None, b"", 0, partition=0) for _ in range(EXPIRE_BATCH + 1)])
    assert [log.expire(DAY_MS) for _ in range(3)] == [EXPIRE_BATCH, 1, 0]


def test_what_stands_before_an_offset_can_be_deleted_in_portions(log: EmbeddedLog) -> None:
    count = EXPIRE_BATCH + 500
    log.append([Message("decisions", None, b"x" * 100, n, partition=n % 2) for n in range(2 * count)])
    full = log.used_bytes()
    before = {TopicPartition("decisions", 0): EXPIRE_BATCH + 100}
    assert [log.delete_records(before) for _ in range(3)] == [EXPIRE_BATCH, 100, 0]
    assert [record.offset for record in log.read("decisions", 0)] == list(range(EXPIRE_BATCH + 100, count))
    assert len(log.read("decisions", 1, 0, 2 * count)) == count
    assert log.remaining(TopicPartition("decisions", 0), 0) == 400
    assert log.used_bytes() < 0.8 * full
    assert log.ends("decisions") == {0: count, 1: count}


_times = st.integers(0, 60)
_appended = st.lists(_times, min_size=1, max_size=40)
_steps = st.lists(
    st.tuples(st.just("append"), _appended)
    | st.tuples(st.sampled_from(["expire", "delete"]), st.integers(0, 100))
    | st.tuples(st.just("reopen"), st.none()),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(_steps, st.integers(0, 60))
def test_what_is_removed_is_neither_more_nor_less_than_asked_for(steps: list[tuple[str, Any]], count: int) -> None:
    """In whatever portions the records came, and whatever was removed from among them."""
    where = TopicPartition("t", 0)
    topic = Topic("t", "w", 1, retention_ms=100)
    kept: list[tuple[int, int]] = []  # offset and time
    end = 0
    with TemporaryDirectory() as folder, ExitStack() as opened:

        def again() -> EmbeddedLog:
            opened.close()
            log = opened.enter_context(closing(EmbeddedLog(Path(folder), fsync=False)))
            log.create([topic])
            return log

        log = again()
        for step, what in steps:
            if step == "append":
                log.append([Message("t", None, b"%d" % n, n, (("n", b"%d" % n), ("x", b"x"))) for n in what])
                kept += enumerate(what, start=end)
                end += len(what)
            elif step == "reopen":
                log = again()
            else:
                remain = [(o, t) for o, t in kept if (t if step == "expire" else o) >= what]
                removed = log.expire(100 + what) if step == "expire" else log.delete_records({where: what})
                assert removed == len(kept) - len(remain)
                kept = remain
        assert log.ends("t") == {0: end}
        for start in range(end + 2):
            records = log.read("t", 0, start, count)
            wanted = [(offset, time_ms) for offset, time_ms in kept if offset >= start]
            assert [(record.offset, record.timestamp_ms) for record in records] == wanted[:count]
            assert all(record.value == b"%d" % record.timestamp_ms == record.headers[0][1] for record in records)
            assert log.remaining(where, start) == (wanted[-1][0] - wanted[0][0] + 1 if wanted else 0)


def test_compacted_topics_do_not_expire_and_need_keys(log: EmbeddedLog) -> None:
    log.append([Message("state", b"k", b"v", 0)])
    assert log.expire(DAY_MS) == 0
    assert len(contents(log, STATE)) == 1
    with pytest.raises(LogError, match=r"'state' is compacted.*no key"):
        log.append([Message("state", None, b"v", 0)])


def test_retention_may_be_changed(log: EmbeddedLog, tmp_path: Path) -> None:
    log.append([Message("decisions", b"k", b"v", 0)])
    with closing(EmbeddedLog(tmp_path / "log")) as other:
        other.create([Topic("decisions", "serving", 2, retention_ms=None)])
    assert log.expire(DAY_MS) == 0
    log.create([DECISIONS])
    assert log.expire(DAY_MS) == 1


# ---- disks and files


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_full_disk_is_an_error_and_loses_nothing(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(400_000))
    with closing(EmbeddedLog(small_disk / "log")) as log:
        log.create(TOPICS)
        acknowledged = 0

        def step() -> None:
            with log.transaction("join") as transaction:
                for part in range(4):
                    transaction.send(Message("feedback", b"%d" % part, b"%5d" % acknowledged * 500, acknowledged))
                transaction.commit_offsets({TopicPartition("decisions", 0): acknowledged + 1})

        def fill() -> None:
            nonlocal acknowledged
            while acknowledged < 1_000:
                step()
                acknowledged += 1

        with pytest.raises(LogError, match=r"join\.sqlite: cannot append records: .*(free space|disk)"):
            fill()
        assert acknowledged > 3
        for _ in range(3):  # it stays full, and stays readable
            with pytest.raises(LogError):
                step()
            assert len(contents(log, FEEDBACK)) == 4 * acknowledged
            assert log.committed("join") == {TopicPartition("decisions", 0): acknowledged}
        filler.unlink()
        step()
        acknowledged += 1
        assert len(contents(log, FEEDBACK)) == 4 * acknowledged
        assert log.committed("join") == {TopicPartition("decisions", 0): acknowledged}


def _damage_header(path: Path) -> None:
    path.write_bytes(b"no database" * 10 + path.read_bytes()[110:])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_damage_header, "damaged"),
        (_cut, "damaged"),
        (_empty, "no file of Leeway's log"),
        (_foreign, "no file of Leeway's log"),
        (_newer, rf"format {FORMAT + 1}.*format {FORMAT}.*install"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_harms_no_other(
    log: EmbeddedLog, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    log.append([Message("feedback", b"%d" % n, bytes(1_000), 0) for n in range(200)])
    log.close()
    path = tmp_path / "log" / "join.sqlite"
    harm(path)
    before = path.read_bytes()
    with closing(EmbeddedLog(tmp_path / "log")) as again:
        with pytest.raises(LogError, match=rf"join\.sqlite: .*{words}"):
            contents(again, FEEDBACK)
        with pytest.raises(LogError, match=r"join\.sqlite"):
            again.append([Message("feedback", b"k", b"v", 0)])
        again.append([Message("decisions", b"k", b"v", 0)])
        assert len(contents(again, DECISIONS)) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "harm",
    [
        "value = substr(value, 1, length(value) - 1)",
        "value = CAST('text' AS TEXT)",
        "value = NULL",
        "size = size + 1",
        "size = 'many'",
        "size = 1 << 60",
    ],
)
def test_a_damaged_block_is_told_with_its_file(log: EmbeddedLog, tmp_path: Path, harm: str) -> None:
    log.append([Message("decisions", None, b"%d" % n, n, partition=1) for n in range(5)])
    with closing(sqlite3.connect(tmp_path / "log" / "serving.sqlite", isolation_level=None)) as file:
        assert file.execute(f"UPDATE blocks_1_1 SET {harm}").rowcount == 1
    for use in (
        lambda: log.read("decisions", 1),
        lambda: log.delete_records({TopicPartition("decisions", 1): 3}),
        lambda: log.expire(1_003),
    ):
        with pytest.raises(LogError, match=r"serving\.sqlite: cannot .*; the file is damaged"):
            use()


# ---- files of format 1


def _of_format_one(directory: Path) -> list[Record]:
    """Make a log as format 1 had it; return its records."""
    directory.mkdir()
    headers = (("content-type", b"any"), ("any", bytes(range(256))))
    decisions = [Record("decisions", n % 2, n // 2, n, b"d%d" % n, b"%d" % n, headers) for n in range(20)]
    keyless = [Record("decisions", 0, 10, 20, None, None, ())]
    state = [Record("state", 0, 3, 0, b"k", b"old", headers), Record("state", 0, 5, 0, b"other", b"stays", ())]
    write_format_one(directory / "serving.sqlite", [DECISIONS], decisions + keyless, {})
    write_format_one(directory / "join.sqlite", [FEEDBACK, STATE], state, {TopicPartition("decisions", 0): 4})
    return [*(r for r in decisions + keyless if r.partition == 0), *(r for r in decisions if r.partition == 1)]


def test_a_log_of_format_1_is_read_and_written_on(tmp_path: Path) -> None:
    before = _of_format_one(tmp_path / "log")
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        log.create(TOPICS)
        assert contents(log, DECISIONS) == before
        assert log.ends("decisions") == {0: 11, 1: 10}
        consumer = log.consumer("join", ["decisions"])
        assert len(consumer.poll()) == len(before) - 4
        log.append([Message("decisions", None, b"%d" % n, n, partition=0) for n in range(20, 30)])
        log.append([Message("state", b"k", b"new", 1, partition=0)])
        assert [record.value for record in log.read("decisions", 0, 9, 3)] == [b"18", None, b"20"]
        assert len(consumer.poll()) == 10
        consumer.seek(TopicPartition("decisions", 0), 5)
        assert consumer.lag()[TopicPartition("decisions", 0)] == 16
        assert {(r.key, r.value, r.offset) for r in contents(log, STATE)} == {
            (b"k", b"new", 6),
            (b"other", b"stays", 5),
        }
    with closing(EmbeddedLog(tmp_path / "log")) as log:  # again, and what is old goes
        assert log.expire(1_024) == 10 + 4 + 1 + 10
        assert [record.value for record in contents(log, DECISIONS)] == [b"%d" % n for n in range(24, 30)]


def test_a_process_of_format_1_does_not_take_blocks_for_records(tmp_path: Path) -> None:
    """It has the file open while another one takes it over: it fails until it is replaced, and passes over nothing."""
    _of_format_one(tmp_path / "log")
    with closing(sqlite3.connect(tmp_path / "log" / "serving.sqlite")) as old:
        assert old.execute("SELECT count(*) FROM records_1_0").fetchone() == (11,)
        with closing(EmbeddedLog(tmp_path / "log")) as log:
            log.append([Message("decisions", None, b"v", 0, partition=0) for _ in range(10)])
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            old.execute("SELECT count(*) FROM records_1_0")


OPENER = """
import sys
from pathlib import Path
from streaming.embedded import EmbeddedLog

print("ready", flush=True)
sys.stdin.readline()
print(len(EmbeddedLog(Path(sys.argv[1])).read("decisions", 0)), flush=True)
"""


def test_processes_may_take_over_a_log_of_format_1_at_once(tmp_path: Path) -> None:
    _of_format_one(tmp_path / "log")
    command = [sys.executable, "-c", OPENER, str(tmp_path / "log")]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [line(child) for child in children] == ["ready"] * 3
    with closing(sqlite3.connect(tmp_path / "log" / "serving.sqlite", isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        time.sleep(0.5)  # all of them have seen the old format by now, and wait
        busy.execute("ROLLBACK")
    assert [child.communicate(timeout=60.0)[0] for child in children] == ["11\n"] * 3


def test_a_damaged_file_of_format_1_is_told_with_its_name(tmp_path: Path) -> None:
    _of_format_one(tmp_path / "log")
    with closing(sqlite3.connect(tmp_path / "log" / "serving.sqlite", isolation_level=None)) as file:
        file.execute("UPDATE topics SET partitions = 'x'")
    before = (tmp_path / "log" / "serving.sqlite").read_bytes()
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        with pytest.raises(LogError, match=r"serving\.sqlite: cannot open the file: .*damaged"):
            log.read("decisions", 0)
        assert len(contents(log, STATE)) == 2
    assert (tmp_path / "log" / "serving.sqlite").read_bytes() == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match=r"file/log: cannot create the directory: Not a directory"):
        EmbeddedLog(tmp_path / "file" / "log")


def test_a_closed_log_says_so(log: EmbeddedLog) -> None:
    log.close()
    with pytest.raises(LogError, match="closed; open it again"):
        log.append([Message("decisions", b"k", b"v", 0)])


def test_names_become_files_and_are_checked(log: EmbeddedLog) -> None:
    with pytest.raises(LogError, match=r"'\.\./etc' cannot name"):
        log.create([Topic("t", "../etc", 1)])
    with pytest.raises(LogError, match="at least 1"):
        log.create([Topic("t", "writer", 0)])


def test_a_crash_while_a_file_is_made_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "serving.draft").write_bytes(b"half of something")
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        log.create(TOPICS)
        assert log.ends("decisions") == {0: 0, 1: 0}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 63, 64, 65, 150])
def test_a_group_of_any_size_is_written_whole_and_in_order(tmp_path: Path, count: int) -> None:
    log = EmbeddedLog(tmp_path, fsync=False)
    log.create([Topic("t", "w", 1), Topic("u", "w", 3)])
    odd = (("", b'"\\\x00\xff'), ("\u00fc", b""))
    for _ in range(2):
        log.append([Message(t, b"k%d" % n, b"v%d" % n, n, odd) for n in range(count) for t in ("t", "u")])
    records = log.read("t", 0)
    assert [record.offset for record in records] == list(range(2 * count))
    assert [(record.value, record.timestamp_ms) for record in records] == [(b"v%d" % n, n) for n in range(count)] * 2
    assert all(tuple(record.headers) == odd for record in records)
    assert sum(log.ends("u").values()) == sum(len(log.read("u", partition)) for partition in range(3)) == 2 * count
    log.close()
