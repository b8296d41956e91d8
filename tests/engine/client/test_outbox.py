from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.client.outbox import Outbox, OutboxFull


@pytest.fixture(params=["memory", "disk"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "outbox" if request.param == "disk" else None


def test_what_came_first_goes_first_and_nothing_comes_twice(path: Path | None) -> None:
    box = Outbox(path, 10)
    for key in ("b", "a", "b"):
        box.add(key, key.encode() * 3)
    assert box.oldest(10, 1_000) == [("b", b"bbb"), ("a", b"aaa")]
    assert len(box) == 2
    box.drop(["b"])
    assert box.oldest(10, 1_000) == [("a", b"aaa")]
    box.close()


def test_a_full_one_takes_nothing_until_there_is_room(path: Path | None) -> None:
    box = Outbox(path, 2)
    for key in "ab":
        box.add(key, b"x")
    with pytest.raises(OutboxFull, match="2 wait"):
        box.add("c", b"x")
    box.drop(["a"])
    box.add("c", b"x")
    assert [key for key, _ in box.oldest(10, 100)] == ["b", "c"]
    box.close()


def test_a_batch_has_a_size_and_never_nothing(path: Path | None) -> None:
    box = Outbox(path, 10)
    for key in "abc":
        box.add(key, bytes(100))
    assert [key for key, _ in box.oldest(10, 200)] == ["a", "b"]
    assert [key for key, _ in box.oldest(10, 1)] == ["a"]
    assert [key for key, _ in box.oldest(2, 10_000)] == ["a", "b"]
    box.close()


def test_on_disk_it_outlives_its_process(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "outbox", 10)
    first.add("a", b"1")  # and no close: the process was killed
    second = Outbox(tmp_path / "outbox", 10)
    assert second.oldest(10, 100) == [("a", b"1")]
    second.drop(["a"])
    assert first.oldest(10, 100) == []
    assert len(first) == 0
    first.close()
    second.close()


def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (a)")
    other.close()
    with pytest.raises(ValueError, match="another program"):
        Outbox(tmp_path / "other", 10)
    (tmp_path / "text").write_text("no database, and long enough to be seen as none" * 20)
    before = (tmp_path / "text").read_bytes()
    with pytest.raises(ValueError, match="no outbox"):
        Outbox(tmp_path / "text", 10)
    assert (tmp_path / "text").read_bytes() == before


def test_many_threads_lose_nothing(path: Path | None) -> None:
    box = Outbox(path, 1_000)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: box.add(str(n), b"x"), range(200)))
    assert len(box) == len(box.oldest(1_000, 10_000)) == 200
    box.close()
