from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LogError
from engine.records import JOIN_STAGE_OPEN, JOIN_STAGE_REMEMBERED, JOIN_STAGE_WAITING
from streaming.cold import NEVER, ColdTable
from streaming.entry import Entry
from streaming.log import Record
from streaming.pending import Pending


def entry(due_ms: int, block: int = 0) -> Entry:
    made = Entry(JOIN_STAGE_OPEN, due_ms, "page", due_ms - 100, b"decision")
    made.block = block
    return made


def slots(some: Entry) -> dict[str, object]:
    return {name: getattr(some, name) for name in Entry.__slots__}


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[ColdTable]:
    with closing(ColdTable(tmp_path)) as table:
        yield table


# ---- on disk


def full(stage: int) -> Entry:
    made = Entry(JOIN_STAGE_OPEN, 2_000, "page", 1_000, b"\x00raw")
    made.not_before_ms, made.block = 3_000, 7
    if stage == JOIN_STAGE_WAITING:
        made = Entry(JOIN_STAGE_WAITING, -5, "", 0, None)
        made.see("a")
        made.wait(Record("outcomes", 2, 17, 1_234, b"d", b"raw", (("ce_id", b"a"),)))
    elif stage == JOIN_STAGE_REMEMBERED:
        made.stage, made.decision = JOIN_STAGE_REMEMBERED, None
    for number in range(40 if stage == JOIN_STAGE_REMEMBERED else 2):
        made.see(f"\0{number}")
        made.count((number, number / 2))
    return made


@pytest.mark.parametrize("stage", [JOIN_STAGE_WAITING, JOIN_STAGE_OPEN, JOIN_STAGE_REMEMBERED])
def test_an_entry_comes_back_from_disk_as_it_was(cold: ColdTable, stage: int) -> None:
    cold.put([(b"d", full(stage)), (b"e", entry(1))])
    ((key, back),) = cold.take([b"x", b"d"])
    assert (key, slots(back)) == (b"d", slots(full(stage)))
    assert len(cold) == 1
    assert cold.take([b"d"]) == []


def test_what_is_due_comes_in_the_order_of_time_and_id(cold: ColdTable) -> None:
    assert cold.next == NEVER
    cold.put([(key, entry(due)) for key, due in ((b"c", 5), (b"a", 7), (b"b", 5), (b"d", 9))])
    assert cold.next == (5, b"b")
    assert [key for key, _ in cold.take_due(8, 2)] == [b"b", b"c"]
    assert cold.next == (7, b"a")
    assert [key for key, _ in cold.take_due(8, 2)] == [b"a"]
    assert cold.next == (9, b"d")


def test_thousands_are_looked_up_at_once(cold: ColdTable) -> None:
    cold.put([(b"%d" % number, entry(number)) for number in range(5_000)])
    found = cold.take([b"%d" % number for number in range(0, 10_000, 2)])
    assert sorted(found)[:1] != []
    assert {key for key, _ in found} == {b"%d" % number for number in range(0, 5_000, 2)}
    assert len(cold) == 2_500


def test_the_file_has_no_name_and_leaves_nothing_behind(cold: ColdTable, tmp_path: Path) -> None:
    cold.put([(b"d", entry(1))])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_told_with_the_remedy(tmp_path: Path, cold: ColdTable) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=rf"{tmp_path}/file.*free space"):
        ColdTable(tmp_path / "file")
    # SQLite answers alike when the disk is full.
    cold._file.execute("PRAGMA max_page_count = 20")
    with pytest.raises(LogError, match=r"cannot write: database or disk is full; free space"):
        cold.put([(b"%d" % number, entry(number)) for number in range(10_000)])
    shutil.rmtree(tmp_path)  # the swap file does not need its name
    with pytest.raises(sqlite3.Error):
        cold._file.execute("no SQL")


# ---- in memory and on disk


Change = tuple[str, bytes, int]
keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(st.sampled_from(["add", "add", "remove", "due", "evict", "get"]), keys, st.integers(-600, 1_200)),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(changes, st.sampled_from([None, 0, 1, 3]))
def test_it_is_a_dict_in_the_order_of_due_times(items: list[Change], max_hot: int | None) -> None:
    reference: dict[bytes, int] = {}
    with TemporaryDirectory() as directory:
        pending = Pending(max_hot, partial(ColdTable, Path(directory)))
        with closing(pending):
            for what, key, time_ms in items:
                known = pending.get(key)
                assert (known and known.due_ms) == reference.get(key)
                if what == "add":
                    reference[key] = time_ms
                    pending.add(key, entry(time_ms))
                elif what == "remove" and known:
                    del reference[key]
                    pending.remove(key)
                elif what == "evict":
                    pending.evict()
                    assert max_hot is None or len(pending.hot) <= max_hot
                elif what == "due":
                    due = sorted((due_ms, key) for key, due_ms in reference.items() if due_ms <= time_ms)
                    assert pending.first(time_ms) == (due[0] if due else None)
                    assert not due or pending.earliest_ms <= due[0][0]
                    taken = []
                    for name, found in pending.due(time_ms):
                        taken.append((found.due_ms, name))
                        pending.remove(name)
                        del reference[name]
                        if len(taken) == 1 and name == b"c":  # one that is due while others are taken
                            pending.add(b"c", entry(time_ms))
                            reference[b"c"] = time_ms
                            due = sorted({*due, (time_ms, b"c")})
                    assert taken == due
                    assert pending.earliest_ms > time_ms
                assert len(pending) == len(reference)


def test_due_can_be_left_and_taken_up_again() -> None:
    pending = Pending()
    for number in range(5):
        pending.add(b"%d" % number, entry(10))
    seen = []
    for _ in range(5):
        for key, _ in pending.due(10):
            seen.append(key)
            pending.remove(key)
            break
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert pending.first(10) is None


def test_a_million_due_at_once_come_back_from_disk_in_parts(tmp_path: Path) -> None:
    pending = Pending(10, partial(ColdTable, tmp_path))
    with closing(pending):
        for number in range(3_000):
            pending.add(b"%04d" % number, entry(10))
        pending.evict()
        seen = []
        for key, _ in pending.due(10):
            seen.append(key)
            pending.remove(key)
            assert len(pending.hot) <= 1_010
        assert seen == [b"%04d" % number for number in range(3_000)]
