from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming.log import Message, Record
from streaming.spool import Spool
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import message_of

MIB = 1_048_576


def opened(directory: Path, max_bytes: int = 64 * MIB) -> Spool:
    return Spool(directory / "spool", max_bytes=max_bytes, fsync=False)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = opened(tmp_path)
    yield spool
    spool.close()


def messages(start: int, count: int, *, detail: str = "") -> list[Message]:
    return [
        message_of(Decision(decision_id=f"d{n}", time_ms=1_000 + n, fallback_detail=detail))
        for n in range(start, start + count)
    ]


def keys(records: list[Record]) -> list[bytes | None]:
    return [record.key for record in records]


def numbers(start: int, end: int) -> list[bytes]:
    return [f"d{n}".encode() for n in range(start, end)]


def file_of(spool_directory: Path) -> Path:
    return spool_directory / "serving.sqlite"


def test_what_is_appended_is_taken_once_in_order_as_it_was(spool: Spool) -> None:
    sent = messages(0, 30)
    spool.append(sent[:10])
    spool.append(sent[10:])
    assert spool.waiting == 30
    first = spool.take(20)
    spool.shipped()
    assert spool.waiting == 10
    second = spool.take(20)
    spool.shipped()
    assert (spool.waiting, spool.take(20)) == (0, [])
    assert [(r.topic, r.key, r.value, r.timestamp_ms, tuple(r.headers)) for r in first + second] == [
        (m.topic, m.key, m.value, m.timestamp_ms, tuple(m.headers)) for m in sent
    ]


def test_what_did_not_arrive_is_taken_again_and_what_did_is_not(spool: Spool) -> None:
    spool.append(messages(0, 30))
    spool.take(10)
    spool.shipped()
    spool.take(10)
    spool.put_back()
    assert spool.waiting == 20
    assert keys(spool.take(100)) == numbers(10, 30)


def test_the_next_process_goes_on_where_this_one_was(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.append(messages(0, 30))
    first.take(10)
    first.shipped()
    first.take(10)  # and is killed before it hears that they arrived
    first.close()
    second = opened(tmp_path)
    assert second.waiting == 20
    assert keys(second.take(100)) == numbers(10, 30)
    second.close()


def test_it_is_full_at_its_limit_and_has_room_again_when_something_was_shipped(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=MIB)
    kept = 0
    with pytest.raises(LogError, match=rf"spool is full: \d+ records wait for the cluster .* of {MIB} bytes; mend"):  # noqa: PT012
        while kept < 10_000:
            spool.append(messages(kept, 10, detail="x" * 1_000))
            kept += 10
    assert spool.waiting == kept
    assert 0.6 * MIB < kept * 1_000 < spool.used_bytes() <= MIB
    for _ in range(kept // 100):
        spool.take(100)
        spool.shipped()
    spool.tidy()
    spool.append(messages(kept, 100, detail="x" * 1_000))
    spool.close()


def test_its_file_does_not_grow_with_what_passes_through(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=64 * MIB)
    sizes = []
    for start in range(0, 60_000, 2_000):
        spool.append(messages(start, 2_000, detail="x" * 200))
        while spool.take(500):  # never tidied, as if there were always more
            spool.shipped()
        sizes.append(file_of(tmp_path / "spool").stat().st_size)
    # 60,000 records take more than 15 MB.
    assert sizes[-1] < 1.05 * max(sizes[:10]) < 5_000_000
    spool.tidy()
    assert spool.used_bytes() < 100_000
    spool.close()


def test_the_oldest_that_waits_is_told_by_decisions_where_there_are_any(spool: Spool) -> None:
    assert spool.oldest_ms() is None
    spool.append([message_of(Outcome(decision_id="d", time_ms=7))])
    assert spool.oldest_ms() == 7
    spool.append(messages(0, 10))
    assert spool.oldest_ms() == 1_000
    spool.take(5)
    assert spool.oldest_ms() == 1_000  # it may not arrive
    spool.shipped()
    assert spool.oldest_ms() != 1_000
    while spool.take(10):
        spool.shipped()
    assert spool.oldest_ms() is None


def test_the_newest_can_be_read_also_when_they_were_shipped(spool: Spool) -> None:
    spool.append(messages(0, 30))
    spool.take(25)
    spool.shipped()
    newest = [Decision.FromString(value).decision_id for value in spool.newest(DECISIONS, 10)]
    assert newest == [f"d{n}" for n in range(20, 30)]
    assert spool.newest(OUTCOMES, 10) == []


def test_one_process_takes_from_a_spool(tmp_path: Path, spool: Spool) -> None:
    with pytest.raises(LogError, match="another process ships from this spool; stop it"):
        opened(tmp_path)


def test_a_note_that_cannot_be_written_costs_a_repetition_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path)
    spool.append(messages(0, 30))

    def full() -> None:
        raise LogError("disk full")

    monkeypatch.setattr(spool._files.consumer, "commit", full)
    spool.take(10)
    spool.shipped()
    assert "is sent twice after a restart: disk full" in caplog.text
    assert (spool.waiting, keys(spool.take(10))) == (20, numbers(10, 20))
    spool.close()
    again = opened(tmp_path)
    assert keys(again.take(10)) == numbers(0, 10)
    again.close()


@pytest.mark.parametrize("when", ["before the start", "while it works"])
@pytest.mark.parametrize("where", [0, 4_096], ids=["its head", "its records"])
def test_a_damaged_spool_is_moved_aside_and_serving_goes_on(
    tmp_path: Path, when: str, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    spool = opened(tmp_path)
    for start in range(0, 5_000, 500):
        spool.append(messages(start, 500, detail="x" * 500))
    if when == "before the start":
        spool.close()
    file = file_of(tmp_path / "spool")
    _flush(file)
    before = file.stat().st_size
    with file.open("r+b") as damaged:
        damaged.seek(where)
        damaged.write(b"\xa5" * (before - where))
    if when == "before the start":
        spool = opened(tmp_path)
    for _ in range(20):
        spool.append(messages(10_000, 1))
        if spool.take(1_000):
            spool.shipped()
    aside = tmp_path / "spool.damaged-1"
    assert file_of(aside).stat().st_size >= before
    assert f"it is {aside} now" in caplog.text
    assert "docs/operating.md" in caplog.text
    assert {level for _, level, _ in caplog.record_tuples} == {logging.ERROR}
    # The new one works.
    while spool.take(1_000):
        spool.shipped()
    spool.append(messages(20_000, 5))
    assert (spool.waiting, keys(spool.take(10))) == (5, numbers(20_000, 20_005))
    assert not math.isnan(spool.used_bytes())
    spool.close()


def _flush(file: Path) -> None:
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
