"""The archive: rows and offsets committed together, readable by anybody, whatever the disk and the clock do."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import training.archive.reader
import training.archive.writer
from engine.config import DecisionPoint
from engine.errors import ConfigError, LogError
from engine.records import MODE_APPRENTICE, MODE_LOGGING_ONLY, MODE_ONLINE, Features, Feedback
from tests.training.feedback import DAY_MS, NEW_YEAR_MS, POINT, feedback, feedbacks, values
from training.archive import ArchiveReader, ArchiveWriter
from training.archive.manifest import Manifest, read_manifest, write_manifest
from training.archive.records import to_feedback

POINTS = {"offers": POINT}


def archived(directory: Path, rows: list[Feedback], batch: int = 10) -> ArchiveReader:
    """Archive the rows a few at a time, as offsets of partition 0."""
    with ArchiveWriter(directory, POINTS) as writer:
        for start in range(0, len(rows), batch):
            assert writer.append(rows[start : start + batch], {0: min(start + batch, len(rows))}) == []
    return ArchiveReader(directory)


def ids(reader: ArchiveReader, start_ms: int = 0, end_ms: int | None = None, last: int | None = None) -> list[str]:
    return list(reader.read("offers", POINT, start_ms, end_ms, last).decision_id)


def changed(**context: object) -> DecisionPoint:
    """Return ``POINT`` with other context features."""
    description = POINT.model_dump()
    description["context"] = {**description["context"], **context}
    return DecisionPoint.model_validate(description)


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.parquet"))


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let the kernel refuse files beyond a size, as it does when there is no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_column_can_be_read_without_leeway(tmp_path: Path) -> None:
    rows = feedbacks(30)
    archived(tmp_path, rows)
    frame = pd.read_parquet(tmp_path).sort_values("decision_id", ignore_index=True)
    assert len(frame) == 30
    assert set(frame["decision_point"]) == {"offers"}
    for i, row in enumerate(rows):
        decision, found = row.decision, frame.loc[i]
        assert found["decision_id"] == decision.decision_id
        assert found["time_ms"] == decision.time_ms
        assert found["policy_version"] == decision.policy_version
        assert found["fallback"] == ("deadline" if i % 10 == 0 else "")
        assert list(found["actions"]) == [action.id for action in decision.actions]
        assert list(found["excluded"]) == [action.excluded for action in decision.actions]
        assert list(found["probabilities"]) == list(decision.probabilities)
        assert list(found["scores"]) == list(decision.scores)
        assert found["chosen"] == decision.chosen
        assert found["propensity"] == decision.probabilities[decision.chosen]
        assert found["reward"] == row.reward
        assert found["defaulted"] == row.defaulted
        assert found["outcomes"] == row.outcomes
        assert found["reward_time_ms"] == row.reward_time_ms


def test_features_stand_in_the_same_columns_in_either_form(tmp_path: Path) -> None:
    named = feedback(1, NEW_YEAR_MS, context=Features(named=values({"age": 0.1, "country": "NL", "taste": [1, 2, 3]})))
    packed = np.array([0.1, 1, 2, 3], dtype="<f4").tobytes()
    other = feedback(2, NEW_YEAR_MS, context=Features(named=values({"country": "NL"}), packed=packed))
    nothing = feedback(3, NEW_YEAR_MS, context=Features())
    archived(tmp_path, [named, other, nothing])
    frame = pd.read_parquet(tmp_path)
    assert frame["context_age"][0] == 0.1
    assert frame["context_age"][1] == np.float32(0.1)
    assert frame["context_country"].tolist()[:2] == ["NL", "NL"]
    assert [list(taste) for taste in frame["context_taste"][:2]] == [[1, 2, 3], [1, 2, 3]]
    assert frame.loc[2, ["context_age", "context_country", "context_taste"]].isna().all()
    assert list(frame["action_brand"][1]) == [f"b{a}" for a in range(len(other.decision.actions))]
    assert list(frame["action_price"][1]) == np.frombuffer(other.decision.packed_actions, "<f4").tolist()


def test_a_row_lies_under_the_utc_day_of_its_decision(tmp_path: Path) -> None:
    times = [NEW_YEAR_MS - 1, NEW_YEAR_MS, NEW_YEAR_MS + DAY_MS - 1, NEW_YEAR_MS + DAY_MS]
    archived(tmp_path, [feedback(i, time) for i, time in enumerate(times)])
    frame = pd.read_parquet(tmp_path).sort_values("time_ms")
    assert frame["date"].astype(str).tolist() == ["2025-12-31", "2026-01-01", "2026-01-01", "2026-01-02"]


def test_rows_and_offsets_survive_a_restart_together(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, POINTS) as writer:
        assert writer.offsets() == {}
        writer.append(feedbacks(5), {0: 3, 1: 2})
        writer.append(feedbacks(5, first=5), {1: 7})
    with ArchiveWriter(tmp_path, POINTS) as writer:
        assert writer.offsets() == {0: 3, 1: 7}
    assert ArchiveReader(tmp_path).count("offers", 0) == 10


def test_offsets_move_on_without_a_row(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, POINTS) as writer:
        writer.append([], {0: 4})
    with ArchiveWriter(tmp_path, POINTS) as writer:
        assert writer.offsets() == {0: 4}
    assert ArchiveReader(tmp_path).points() == []
    assert len(ArchiveReader(tmp_path).read("offers", POINT, 0)) == 0


def test_nothing_was_archived_yet(tmp_path: Path) -> None:
    reader = ArchiveReader(tmp_path / "missing")
    assert reader.points() == []
    assert reader.count("offers", 0) == 0
    assert reader.read("offers", POINT, 0, last=5).context.shape == (0, 12)


@pytest.mark.parametrize("limit", [0, 1_000], ids=["no byte", "half a file"])
def test_a_full_disk_commits_nothing_and_can_be_mended(tmp_path: Path, limit: int) -> None:
    rows = feedbacks(20)
    with ArchiveWriter(tmp_path, POINTS) as writer:
        writer.append(rows[:10], {0: 10})
        before = files(tmp_path)
        with full_disk(limit), pytest.raises(LogError, match="make room"):
            writer.append(rows[10:], {0: 20})
        assert writer.offsets() == {0: 10}
        assert files(tmp_path) == before
        assert ids(ArchiveReader(tmp_path)) == [row.decision.decision_id for row in rows[:10]]
        writer.append(rows[10:], {0: 20})
    assert ids(ArchiveReader(tmp_path)) == [row.decision.decision_id for row in rows]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("replaced", [False, True], ids=["before the manifest", "after the manifest"])
@pytest.mark.parametrize("operation", ["append", "compact", "expire"])
def test_an_error_leaves_the_state_before_or_after_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool, operation: str
) -> None:
    rows = feedbacks(40) + feedbacks(10, start_ms=NEW_YEAR_MS + DAY_MS, first=40)

    def refuse(directory: Path, manifest: Manifest) -> None:
        if replaced:  # as when the manifest is in place and only its directory cannot be flushed
            write_manifest(directory, manifest)
        raise OSError(errno.ENOSPC, "No space left on device")

    with ArchiveWriter(tmp_path, POINTS) as writer:
        for start in range(0, 40, 10):
            writer.append(rows[start : start + 10], {0: start + 10})
        do: dict[str, Callable[[], object]] = {
            "append": lambda: writer.append(rows[40:], {0: 50}),
            "compact": lambda: writer.compact(max_parts=1),
            "expire": lambda: writer.expire(NEW_YEAR_MS + DAY_MS),
        }
        monkeypatch.setattr(training.archive.writer, "write_manifest", refuse)
        with pytest.raises(LogError, match="No space left on device"):
            do[operation]()
        monkeypatch.undo()
        expired = operation == "expire" and replaced
        start = writer.offsets()[0]
        assert start == (50 if operation == "append" and replaced else 40)
        writer.append(rows[start:], {0: 50})
    listed = read_manifest(tmp_path)
    assert listed is not None
    assert files(tmp_path) == sorted(part.path for part in listed.parts)
    assert ids(ArchiveReader(tmp_path)) == [row.decision.decision_id for row in rows[40 if expired else 0 :]]


def test_what_a_crash_left_is_invisible_and_swept_and_nothing_else_is(tmp_path: Path) -> None:
    reader = archived(tmp_path, feedbacks(10))
    part = next(tmp_path.rglob("*.parquet"))
    leftover = part.with_name("part-00000099.parquet")
    leftover.write_bytes(part.read_bytes())
    half = part.with_name(".part-00000100.parquet.77.tmp")
    half.write_bytes(b"PAR1")
    foreign = part.with_name("notes.txt")
    foreign.write_text("mine")
    assert reader.count("offers", 0) == 10
    assert len(ids(reader)) == 10
    ArchiveWriter(tmp_path, POINTS).close()
    assert not leftover.exists()
    assert not half.exists()
    assert foreign.exists()
    assert part.exists()


def test_there_is_one_writer(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, POINTS), pytest.raises(LogError, match="written by another process"):
        ArchiveWriter(tmp_path, POINTS)
    ArchiveWriter(tmp_path, POINTS).close()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b'{"format": 1, "sequence": 0, "off'])
def test_a_damaged_manifest_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    reader = archived(tmp_path, feedbacks(10))
    (tmp_path / "_manifest.json").write_bytes(content)
    with pytest.raises(LogError, match=r"not a manifest of the archive .*restore it from a copy"):
        ArchiveWriter(tmp_path, POINTS)
    with pytest.raises(LogError, match="not a manifest of the archive"):
        reader.count("offers", 0)


def test_a_manifest_of_a_later_format_is_not_misread(tmp_path: Path) -> None:
    reader = archived(tmp_path, feedbacks(10))
    content = json.loads((tmp_path / "_manifest.json").read_bytes())
    (tmp_path / "_manifest.json").write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(LogError, match="format 2 is not 1"):
        reader.points()


def test_files_without_a_manifest_are_not_deleted(tmp_path: Path) -> None:
    archived(tmp_path, feedbacks(10))
    (tmp_path / "_manifest.json").unlink()
    before = files(tmp_path)
    with pytest.raises(LogError, match="no manifest; restore"):
        ArchiveWriter(tmp_path, POINTS)
    assert files(tmp_path) == before != []


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    reader = archived(tmp_path, feedbacks(20))
    part = next(tmp_path.rglob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    with pytest.raises(LogError, match="changed or damaged"):
        reader.read("offers", POINT, 0)
    with ArchiveWriter(tmp_path, POINTS) as writer, pytest.raises(LogError, match="changed or damaged"):
        writer.compact(max_parts=1)
    part.unlink()
    with pytest.raises(LogError, match="listed in the manifest, but missing"):
        reader.read("offers", POINT, 0)


def test_compaction_keeps_every_row_and_few_files(tmp_path: Path) -> None:
    rows = feedbacks(150, step_ms=1_000_000)  # 1.7 days
    plain = archived(tmp_path / "plain", rows)
    with ArchiveWriter(tmp_path / "compacted", POINTS) as writer:
        for start in range(0, 150, 3):
            writer.append(rows[start : start + 3], {0: start + 3})
            writer.compact(max_parts=4)
            days = [path.split("/")[1] for path in files(writer.directory)]
            assert max(days.count(day) for day in days) <= 4
        assert writer.offsets() == {0: 150}
    compacted = ArchiveReader(tmp_path / "compacted")
    assert compacted.read("offers", POINT, 0).digest() == plain.read("offers", POINT, 0).digest()
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "compacted").sort_values("decision_id", ignore_index=True),
        pd.read_parquet(tmp_path / "plain").sort_values("decision_id", ignore_index=True),
    )


def test_a_row_is_rewritten_a_logarithmic_number_of_times(tmp_path: Path) -> None:
    rows, rewritten = feedbacks(128, step_ms=1), 0
    with ArchiveWriter(tmp_path, POINTS) as writer:
        before: dict[str, int] = {}
        for i, row in enumerate(rows):
            writer.append([row], {0: i + 1})
            merged = writer.compact(max_parts=7)
            manifest = read_manifest(tmp_path)
            assert manifest is not None
            after = {part.path: part.rows for part in manifest.parts}
            if merged:
                rewritten += max(number for path, number in after.items() if path not in before)
            before = after
    # 8 files at first, then doubled 4 times: at most 5 times each. Merging all files each time would make it 9.
    assert rewritten <= 5 * 128


def test_merged_files_have_a_greatest_size(tmp_path: Path) -> None:
    archived(tmp_path, feedbacks(100))
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.parquet")]
    with ArchiveWriter(tmp_path, POINTS) as writer:
        assert writer.compact(max_parts=3, target_bytes=sum(sizes) // 2) > 0
        assert max(path.stat().st_size for path in tmp_path.rglob("*.parquet")) <= sum(sizes) // 2
    assert ArchiveReader(tmp_path).count("offers", 0) == 100


@pytest.mark.parametrize("what", ["count", "read"])
def test_a_reader_is_not_disturbed_by_a_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    reader = archived(tmp_path, feedbacks(50))
    merged = False

    def manifest_then_merge(directory: Path) -> Manifest | None:
        nonlocal merged
        manifest = read_manifest(directory)
        if not merged:
            merged = True
            with ArchiveWriter(directory, POINTS) as writer:
                assert writer.compact(max_parts=1) > 0
        return manifest

    monkeypatch.setattr(training.archive.reader, "read_manifest", manifest_then_merge)
    since = NEW_YEAR_MS + 5_500
    assert (reader.count("offers", since) if what == "count" else len(ids(reader, since))) == 44


def test_counts_and_windows_agree_with_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times = NEW_YEAR_MS + rng.integers(0, 40, 200) * (DAY_MS // 16)  # many at the same time
    rows = [feedback(int(i), int(times[i])) for i in rng.permutation(200)]
    reader = archived(tmp_path, rows, batch=70)
    in_order = sorted(rows, key=lambda row: (row.decision.time_ms, row.decision.decision_id))
    for _ in range(20):
        start, end = np.sort(rng.choice(times, 2)) + rng.integers(-1, 2, 2)
        inside = [row.decision.decision_id for row in in_order if start <= row.decision.time_ms < end]
        since = [row.decision.decision_id for row in in_order if row.decision.time_ms >= start]
        assert reader.count("offers", int(start), int(end)) == len(inside)
        assert reader.count("offers", int(start)) == len(since)
        assert ids(reader, int(start), int(end)) == inside
        last = int(rng.integers(1, 60))
        assert ids(reader, int(start), int(end), last) == inside[-last:]
    assert reader.count("others", 0) == 0


def test_the_dataset_does_not_depend_on_how_it_was_written(tmp_path: Path) -> None:
    rows = feedbacks(60)
    one = archived(tmp_path / "one", rows, batch=60).read("offers", POINT, 0)
    many = archived(tmp_path / "many", rows[::-1], batch=7).read("offers", POINT, 0)
    assert one.digest() == many.digest()


def test_decision_points_do_not_mix(tmp_path: Path) -> None:
    points = {"offers": POINT, "banners": changed(height={"type": "number"})}
    with ArchiveWriter(tmp_path, points) as writer:
        writer.append([feedback(i, NEW_YEAR_MS, point=("offers", "banners")[i % 3 == 1]) for i in range(9)], {0: 9})
    reader = ArchiveReader(tmp_path)
    assert reader.points() == ["banners", "offers"]
    assert reader.count("banners", 0) == 3
    assert reader.read("banners", points["banners"], 0).context.shape == (3, 13)
    assert len(ids(reader)) == 6


def test_what_does_not_fit_is_returned_with_its_reason_and_the_rest_archived(tmp_path: Path) -> None:
    rows = feedbacks(8)
    rows[1].decision.decision_point = "removed"
    rows[2].decision.context.CopyFrom(Features(named=values({"age": "old"})))
    rows[3].decision.context.CopyFrom(Features(packed=bytes(8)))
    rows[4].decision.context.CopyFrom(Features(named=values({"taste": [1.0, 2.0]})))
    rows[5].decision.chosen = 9
    rows[6].decision.context.CopyFrom(Features(named=values({"age": float("nan")})))
    with ArchiveWriter(tmp_path, POINTS) as writer:
        rejected = writer.append(rows, {0: 8})
        assert writer.offsets() == {0: 8}
    reasons = {item.feedback.decision.decision_id: item.reason for item in rejected}
    expected = {
        1: "'removed' is not configured",
        2: "context.features.age: is declared number, but came as text",
        3: "context.packed: must be 1 x 4",
        4: "context.features.taste: must have 3 numbers, got 2",
        5: "chosen: is 9",
        6: "context.features.age: is no finite number",
    }
    assert set(reasons) == {rows[i].decision.decision_id for i in expected}
    for i, reason in expected.items():
        assert reason in reasons[rows[i].decision.decision_id]
    assert ids(ArchiveReader(tmp_path)) == [rows[i].decision.decision_id for i in (0, 7)]


def test_a_new_feature_is_missing_in_old_files(tmp_path: Path) -> None:
    archived(tmp_path, feedbacks(10))
    new = changed(height={"type": "number"}, shape={"type": "vector", "size": 2}, city={"type": "text", "buckets": 2})
    with ArchiveWriter(tmp_path, {"offers": new}) as writer:
        context = Features(named=values({"height": 2.0, "shape": [1.0, 3.0], "city": "Delft"}))
        writer.append([feedback(i, NEW_YEAR_MS + DAY_MS // 2, context=context) for i in range(10, 20)], {0: 20})
        writer.compact(max_parts=1)  # files of two schemas on one day stay apart
    data = ArchiveReader(tmp_path).read("offers", new, 0)
    assert data.context.shape == (20, 17)
    assert not data.context[:10, 12:].any()
    assert data.context[10:, 12:15].tolist() == [[2.0, 1.0, 3.0]] * 10
    assert data.context[10:, 15:].sum(axis=1).tolist() == [1.0] * 10
    old = ArchiveReader(tmp_path).read("offers", POINT, 0)  # and a feature that was removed is left out
    np.testing.assert_array_equal(old.context, data.context[:, :12])


def test_another_scale_or_hash_applies_to_old_rows(tmp_path: Path) -> None:
    reader = archived(tmp_path, feedbacks(10))
    before = reader.read("offers", POINT, 0).context[:, 0]
    after = reader.read("offers", changed(age={"type": "number", "scale": 0.02}), 0).context[:, 0]
    assert before.any()
    np.testing.assert_allclose(after, 2 * before, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": {"type": "text"}}, "context.age: was archived as number, but is declared text now"),
        ({"country": {"type": "number"}}, "context.country: was archived as text, but is declared number now"),
        ({"taste": {"type": "number"}}, "context.taste: was archived as vector, but is declared number now"),
        ({"taste": {"type": "vector", "size": 2}}, "context.taste: was archived with 3 numbers, but is declared with"),
        ({"taste": {"type": "vector", "size": 3, "scale": 3e38}}, "context.taste_.* correct the scale"),
    ],
    ids=["number", "text", "vector", "size", "scale"],
)
def test_a_changed_type_is_a_clear_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    reader = archived(tmp_path, feedbacks(10))
    with pytest.raises(ConfigError, match=message):
        reader.read("offers", changed(**change), 0)


def test_expired_files_are_deleted(tmp_path: Path) -> None:
    rows = feedbacks(30, step_ms=DAY_MS // 5)  # 6 days
    reader = archived(tmp_path, rows)
    with ArchiveWriter(tmp_path, POINTS) as writer:
        noon = NEW_YEAR_MS + 2 * DAY_MS + DAY_MS // 2  # of a day that stays whole
        assert writer.expire(noon) == 10
        assert writer.expire(noon) == 0
        assert writer.offsets() == {0: 30}
    assert ids(reader) == [row.decision.decision_id for row in rows[10:]]
    listed = read_manifest(tmp_path)
    assert listed is not None
    assert files(tmp_path) == sorted(part.path for part in listed.parts)


def test_the_mode_comes_back_and_files_of_before_there_were_modes_are_read(tmp_path: Path) -> None:
    rows = feedbacks(4)
    rows[1].decision.mode = MODE_LOGGING_ONLY
    batches = list(archived(tmp_path, rows).batches("offers"))
    read = {each.decision.decision_id: each.decision.mode for batch in batches for each in to_feedback(batch, "offers")}
    assert read == {row.decision.decision_id: row.decision.mode for row in rows}
    (old, *_) = [each for batch in batches for each in to_feedback(batch.drop_columns(["mode"]), "offers")]
    assert old.decision.mode == MODE_ONLINE


def test_of_an_apprentice_no_value_is_estimated(tmp_path: Path) -> None:
    rows = feedbacks(40)
    for row in rows[::2]:
        row.decision.mode = MODE_APPRENTICE
    reader = archived(tmp_path, rows)
    wanted = [row.decision.decision_id for row in sorted(rows[1::2], key=lambda row: row.decision.time_ms)]
    assert list(reader.read("offers", POINT, 0).decision_id) == wanted
    assert list(reader.read("offers", POINT, 0, last=7).decision_id) == wanted[-7:]
    assert reader.count("offers", 0) == 40
