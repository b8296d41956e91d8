"""A window on disk: the same rows, digest, checks and models as in memory, however its files lie."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import training.archive.spill
import training.archive.writer
import training.chosen_rows
from engine.errors import LogError
from engine.records import MODE_APPRENTICE
from tests.training import feedback as others
from tests.training.floor import BOTH, Floor, Past
from tests.training.test_archive import archived
from tests.training.world import NAME, POINT, START_MS, World, archive_of, trained
from training.archive import ArchiveReader, ArchiveWriter
from training.archive.section import Section
from training.candidates import calibrated
from training.checks import faults
from training.chosen_rows import ChosenRows
from training.config import DampingConfig, LightGBMConfig, SearchConfig
from training.damping import row_weights
from training.dataset import Dataset
from training.extract import window_path
from training.fit import FITTERS, Fitted, candidate
from training.generations import reference_set
from training.job import ExitCode, RetrainJob
from training.search import search_lightgbm
from training.stored import Column, Feedbacks, StoredDataset
from training.window_quality import coverage

TREES = LightGBMConfig(trees=20)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, StoredDataset]:
    directory = tmp_path_factory.mktemp("both")
    world = World(seed=3)
    rows = world.stream(trained(World(seed=4), 500), 900, excluded=True)
    reader = ArchiveReader(archive_of(rows, directory / "archive"))
    return reader.read(NAME, POINT, START_MS), reader.store(NAME, POINT, START_MS, directory=directory / "window")


@pytest.mark.parametrize("last", [None, 1, 60, 199, 1_000])
def test_the_rows_and_their_digest_are_those_of_memory(last: int | None, tmp_path: Path) -> None:
    # Several files a day, days that overlap files, rows that come late, texts of several bytes a letter.
    rows = others.feedbacks(200)
    rows[7].decision.decision_id = "söö"
    order = np.random.default_rng(0).permutation(200)
    reader = archived(tmp_path / "archive", [rows[i] for i in order], batch=37)
    start_ms, end_ms = others.NEW_YEAR_MS - others.DAY_MS, None
    expected = reader.read("offers", others.POINT, start_ms, end_ms, last)
    stored = reader.store("offers", others.POINT, start_ms, end_ms, last, directory=tmp_path / "window")
    assert len(stored) == len(expected) == min(200, last or 200)
    assert stored.digest() == expected.digest() == stored.load().digest()
    middle = stored.part(len(stored) // 3, 2 * len(stored) // 3)
    assert middle.digest() == expected.part(len(stored) // 3, 2 * len(stored) // 3).digest()
    assert Dataset.concatenate(list(stored.blocks(7))).digest() == expected.digest()
    assert_array_equal(stored.chosen_matrix(), expected.chosen_matrix())
    assert_array_equal(stored.propensity, expected.propensity)
    assert stored.chosen_codes()[0] == expected.chosen_codes()[0]
    assert_array_equal(stored.chosen_codes()[1], expected.chosen_codes()[1])


@pytest.mark.parametrize("memory", [training.archive.spill.IN_MEMORY, 0])
@pytest.mark.parametrize("alike", [False, True])
def test_the_rows_are_the_same_however_a_day_is_put_together(
    memory: int, alike: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Held in memory or mapped; with as many actions in each row or not; in files of several row groups.
    monkeypatch.setattr(training.archive.spill, "IN_MEMORY", memory)
    monkeypatch.setattr(training.archive.writer, "_ROW_GROUP", 16)
    rows = others.feedbacks(300, step_ms=others.DAY_MS // 140)
    if alike:
        rows = [row for row in rows if len(row.decision.actions) == 2]
    for row in rows:  # many at the same time
        row.decision.time_ms -= row.decision.time_ms % (5 * others.DAY_MS // 140)
    for row in rows[::9]:
        row.decision.mode = MODE_APPRENTICE
    order = np.random.default_rng(0).permutation(len(rows))
    reader = archived(tmp_path / "archive", [rows[i] for i in order])
    with ArchiveWriter(tmp_path / "archive", {"offers": others.POINT}) as writer:
        writer.compact(max_parts=1)
    groups = [pq.ParquetFile(path).num_row_groups for path in (tmp_path / "archive").rglob("*.parquet")]
    assert max(groups) > 1
    inside = others.NEW_YEAR_MS + others.DAY_MS // 2, others.NEW_YEAR_MS + 2 * others.DAY_MS
    for start_ms, end_ms, last in ((0, None, None), (*inside, None), (*inside, 40)):
        expected = reader.read("offers", others.POINT, start_ms, end_ms, last)
        stored = reader.store("offers", others.POINT, start_ms, end_ms, last, directory=tmp_path / "window")
        assert stored.digest() == expected.digest()
        assert list(stored.decision_ids()) == list(expected.decision_ids())
        assert_array_equal(stored.chosen_matrix(), expected.chosen_matrix())
        assert stored.chosen_codes()[0] == expected.chosen_codes()[0]
        stored.close()


def test_a_window_with_nothing_in_it_is_empty(tmp_path: Path) -> None:
    reader = archived(tmp_path / "archive", others.feedbacks(5))
    for start_ms, end_ms in ((0, 1), (others.NEW_YEAR_MS + 900 * others.DAY_MS, None)):
        stored = reader.store("offers", others.POINT, start_ms, end_ms, directory=tmp_path / "window")
        assert len(stored) == 0
        assert stored.digest() == reader.read("offers", others.POINT, start_ms, end_ms).digest()


@pytest.mark.parametrize("name", FITTERS)
@pytest.mark.parametrize("weighed", [False, True])
def test_models_are_the_same_bit_for_bit(name: str, weighed: bool, both: tuple[Dataset, StoredDataset]) -> None:
    damping = DampingConfig(weight_cap=1.5, blend_decay=0.5, balance_classes=True)

    def fitted(rows: Dataset | StoredDataset) -> str:
        weights = row_weights(rows, damping, (0.0, 1.0)) if weighed else None
        made: Fitted = FITTERS[name](rows, POINT, TREES, 0, weights)  # type: ignore[index]  # a name of the parameters
        policy = candidate(NAME, POINT, made, generation=1, created_ms=1)
        return calibrated(policy, rows.part(500, 900)).digest()

    assert fitted(both[0]) == fitted(both[1])


def test_lightgbm_reads_the_matrix_row_by_row_and_in_blocks(
    both: tuple[Dataset, StoredDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.chosen_rows, "BLOCK", 64)  # so that a sample goes over several
    memory, disk = both
    codes = disk.chosen_codes()[1]
    expected = np.column_stack([memory.chosen_matrix(), codes])
    rows = ChosenRows(disk, codes)
    for index in (0, 5, 63, 64, 500, 899, 3):
        assert_array_equal(rows[index], expected[index].astype(np.float64))
        assert rows[index].dtype == np.float64
    assert_array_equal(rows[130:260], expected[130:260])
    assert_array_equal(rows[7], expected[7])


def test_checks_coverage_search_and_reference_are_the_same(both: tuple[Dataset, StoredDataset]) -> None:
    memory, disk = both
    assert coverage(disk) == coverage(memory)
    assert faults(disk, POINT) == faults(memory, POINT) == []
    assert reference_set(disk).digest() == reference_set(memory).digest()

    def losses(rows: Feedbacks) -> list[float]:
        found: list[float] = []
        tell = lambda _, loss: found.append(loss)  # noqa: E731
        search_lightgbm(rows, POINT, TREES, SearchConfig(trials=1), 0, lambda: 0, tell)
        return found

    assert losses(disk) == losses(memory)


def test_a_decision_that_is_there_twice_is_found_on_disk(tmp_path: Path) -> None:
    rows = World(seed=3).stream(None, 30)
    rows[20].decision.decision_id = rows[3].decision.decision_id
    reader = ArchiveReader(archive_of(rows, tmp_path / "archive"))
    stored = reader.store(NAME, POINT, START_MS, directory=tmp_path / "window")
    assert faults(stored, POINT) == ["1 decisions are there twice"]


def test_a_retraining_leaves_nothing_of_its_window_behind(drifted: Past, floor: Floor) -> None:
    job = RetrainJob(NAME, POINT, BOTH, floor.directory)
    window_path(job).mkdir()
    (window_path(job) / "reward").write_bytes(b"of one that was killed")
    assert floor.retrain(drifted).exit_code == ExitCode.PROMOTED
    assert not window_path(job).exists()


def test_where_there_is_no_room_the_error_says_what_to_do(tmp_path: Path) -> None:
    reader = archived(tmp_path / "archive", others.feedbacks(5))
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"window cannot be written.*retraining\.max_rows"):
        reader.store("offers", others.POINT, 0, directory=tmp_path / "file" / "window")


def test_a_window_that_cannot_be_written_is_not_held_open(tmp_path: Path) -> None:
    # A file that was merged away is noticed half way, and the window is written once more: the disk must hold one.
    reader = archived(tmp_path / "archive", others.feedbacks(5))
    for path in (tmp_path / "archive").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(LogError, match="missing"):
        reader.store("offers", others.POINT, 0, directory=tmp_path / "window")
    held = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [path for path in held if str(tmp_path / "window") in path]


@pytest.mark.parametrize("hold", [False, True])
def test_a_stretch_of_a_column_has_its_room_before_it_is_written_and_none_after(hold: bool, tmp_path: Path) -> None:
    (tmp_path / "column").touch()
    column = Column(tmp_path / "column", np.float64)
    section = Section(column, 3, 100_000, hold=hold)
    if not hold:  # a page of a map for which the disk has no room would end the process
        assert column.path.stat().st_blocks * 512 >= 800_000
    rows = weakref.ref(section._rows)
    section.put(np.arange(100_000), np.arange(100_000.0))
    section.write()
    assert rows() is None
    assert_array_equal(column.read(3, 100_003), np.arange(100_000.0))
    column.close()
