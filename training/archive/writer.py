"""The writer of the archive: rows and log offsets are committed together, so that a crash neither loses nor repeats."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.atomic_file import write_atomically
from engine.config import DecisionPoint, Recommender
from engine.errors import InvalidRequest, LogError
from engine.records import Feedback
from training.archive.columns import to_table
from training.archive.lists import to_list_table
from training.archive.manifest import Manifest, Part, open_part, read_manifest, write_manifest

_DAY_MS = 86_400_000
_ROW_GROUP = 65_536
_Group = tuple[str, str]  # decision point, date


@dataclass(frozen=True, slots=True)
class Rejected:
    """A feedback that cannot be archived, and why."""

    feedback: Feedback
    reason: str


class ArchiveWriter:
    """The only writer of one archive.

    The files are ``decision_point=<name>/date=<YYYY-MM-DD>/part-<number>.parquet`` below the directory. A commit
    writes new files, then replaces the manifest, then deletes what the manifest has ceased to list. What a crash
    leaves unlisted is invisible, and deleted when the next writer starts.

    Parameters
    ----------
    directory
        The archive; made if need be.
    points
        The decision points and recommenders by name.

    Raises
    ------
    LogError
        Another process writes this archive, or its manifest is missing or damaged.
    """

    def __init__(self, directory: Path, points: Mapping[str, DecisionPoint | Recommender]) -> None:
        self.directory = directory
        self._points = points
        with _actionable(f"{directory}: cannot be opened for writing"):
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / ".lock").open("ab")
        try:
            self._start()
        except BaseException:
            self._lock.close()
            raise

    def _start(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogError(
                f"{self.directory}: is being written by another process; an archive has one writer: stop the other "
                "one, or give this one a directory of its own"
            ) from None
        manifest = read_manifest(self.directory)
        if manifest is None:
            if any(self.directory.glob("decision_point=*/date=*/part-*.parquet")):
                raise LogError(
                    f"{self.directory}: has Parquet files but no manifest; restore _manifest.json from a copy, or "
                    "move the directory away: the archive is built again from the feedback that the log keeps"
                )
            manifest = Manifest()
            with _actionable(f"{self.directory}: the manifest cannot be written"):
                write_manifest(self.directory, manifest)
        self._manifest = manifest
        with _actionable(f"{self.directory}: what a crash left behind cannot be deleted"):
            self._sweep()

    def offsets(self) -> dict[int, int]:
        """Return for each partition of the feedback topic the next offset to be archived."""
        return dict(self._manifest.offsets)

    def append(self, feedbacks: Sequence[Feedback], offsets: Mapping[int, int]) -> list[Rejected]:
        """Archive feedback and the offsets reached with it, all or nothing.

        Parameters
        ----------
        feedbacks
            In any order, of any decision points.
        offsets
            For each partition that they come from the next offset to be read; other partitions keep theirs.

        Returns
        -------
        list of Rejected
            What does not fit the schema of its decision point, or has none. It is left out, and everything else
            is archived.

        Raises
        ------
        LogError
            The disk refused. Nothing was committed, and the writer can be used again; ``offsets`` says where to
            go on.
        """
        rejected: list[Rejected] = []
        groups: dict[_Group, list[Feedback]] = defaultdict(list)
        for feedback in feedbacks:
            decision = feedback.decision
            if decision.decision_point in self._points:
                groups[decision.decision_point, _date(decision.time_ms)].append(feedback)
            else:
                rejected.append(Rejected(feedback, f"decision point {decision.decision_point!r} is not configured"))
        tables: list[tuple[_Group, Any]] = []
        for group, members in groups.items():
            table, unfit = _fitting(self._points[group[0]], members)
            rejected += unfit
            if table.num_rows:
                tables.append((group, table))
        with self._all_or_nothing("feedback cannot be archived"):
            sequence = self._manifest.sequence
            parts = [self._write(sequence + i, group, table.schema, [table]) for i, (group, table) in enumerate(tables)]
            self._commit(
                Manifest(sequence + len(parts), {**self._manifest.offsets, **offsets}, (*self._manifest.parts, *parts))
            )
        return rejected

    def compact(self, max_parts: int = 16, target_bytes: int = 134_217_728) -> int:
        """Merge small files: those of one decision point, day and schema once there are more than ``max_parts``.

        A merge takes the smallest files, and a greater one only if those before it have at least as many rows:
        so a row is rewritten a number of times that grows with the logarithm of the day's rows. No row changes.

        Parameters
        ----------
        max_parts
            How many small files may lie side by side.
        target_bytes
            Files of half this size are no longer small; no merged file is greater than this.

        Returns
        -------
        int
            How many files fewer there are.

        Raises
        ------
        LogError
            The disk refused, or a file is damaged. The archive is as it was.
        """
        groups: dict[tuple[str, str, str], list[Part]] = defaultdict(list)
        for part in self._manifest.parts:
            if part.bytes < target_bytes // 2:
                groups[part.decision_point, part.date, part.columns].append(part)
        fewer = 0
        for (name, date, _), small in groups.items():
            if len(small) <= max_parts:
                continue
            chosen = _to_merge(small, target_bytes)
            with self._all_or_nothing("files cannot be merged"):
                files = [open_part(self.directory, part, verify=True) for part in chosen]
                merged = self._write(
                    self._manifest.sequence,
                    (name, date),
                    files[0].schema_arrow,
                    _row_groups(files),
                )
                self._replace(chosen, [merged])
            fewer += len(chosen) - 1
        return fewer

    def expire(self, before_ms: int) -> int:
        """Delete the files that hold only decisions made before a time; return how many rows they had."""
        old = [part for part in self._manifest.parts if part.max_time_ms < before_ms]
        if old:
            with self._all_or_nothing("old files cannot be removed"):
                self._replace(old, [])
        return sum(part.rows for part in old)

    def close(self) -> None:
        """Let another writer in."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, number: int, group: _Group, schema: Any, tables: Iterable[Any]) -> Part:
        """Write a file that no manifest lists yet."""
        path = f"decision_point={group[0]}/date={group[1]}/part-{number:08d}.parquet"
        _make_directory((self.directory / path).parent)
        sink = pa.BufferOutputStream()
        rows = 0
        times: list[int] = []
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                rows += table.num_rows
                times += pc.min_max(table["time_ms"]).as_py().values()
        data = sink.getvalue().to_pybytes()
        write_atomically(self.directory / path, data)
        columns = hashlib.sha256("\n".join(f"{field.name}: {field.type}" for field in schema).encode()).hexdigest()[:16]
        digest = hashlib.sha256(data).hexdigest()
        return Part(path, *group, rows, min(times), max(times), len(data), digest, columns)

    def _replace(self, old: Sequence[Part], new: Sequence[Part]) -> None:
        """Commit a manifest with other parts, then delete the files that it does not list any more."""
        gone = {part.path for part in old}
        kept = [part for part in self._manifest.parts if part.path not in gone]
        self._commit(replace(self._manifest, sequence=self._manifest.sequence + len(new), parts=(*kept, *new)))
        for path in gone:
            # What cannot be deleted now is invisible, and deleted at the next start.
            with contextlib.suppress(OSError):
                (self.directory / path).unlink()

    def _commit(self, manifest: Manifest) -> None:
        write_manifest(self.directory, manifest)
        self._manifest = manifest

    @contextlib.contextmanager
    def _all_or_nothing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # The disk decides what was committed: replacing the manifest may have succeeded before the error.
            self._manifest = read_manifest(self.directory) or self._manifest
            with contextlib.suppress(OSError):
                self._sweep()
            raise LogError(
                f"{self.directory}: {what} ({error.strerror or error}); make room or mend the disk, and it goes on by "
                "itself: nothing was lost"
            ) from error

    def _sweep(self) -> None:
        """Delete what a crash or an error left behind, and nothing that has another name than our own files."""
        listed = {self.directory / part.path for part in self._manifest.parts}
        for path in self.directory.glob("decision_point=*/date=*/part-*.parquet"):
            if path not in listed:
                path.unlink(missing_ok=True)
        for pattern in ("._manifest.json.*.tmp", "decision_point=*/date=*/.part-*.parquet.*.tmp"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)


def _fitting(point: DecisionPoint | Recommender, feedbacks: Sequence[Feedback]) -> tuple[Any, list[Rejected]]:
    """Return a table of the feedbacks that fit, and the others."""
    try:
        return _table(point, feedbacks), []
    except InvalidRequest:
        # Rare: the schema was changed while feedback of the old one was under way. One by one tells which.
        fitting, rejected = [], []
        for feedback in feedbacks:
            try:
                _table(point, [feedback])
                fitting.append(feedback)
            except InvalidRequest as error:
                rejected.append(Rejected(feedback, str(error)))
        return _table(point, fitting), rejected


def _table(point: DecisionPoint | Recommender, feedbacks: Sequence[Feedback]) -> Any:
    return to_table(point, feedbacks) if isinstance(point, DecisionPoint) else to_list_table(point, feedbacks)


def _row_groups(files: Iterable[Any]) -> Iterator[Any]:
    """Return the rows of all files in tables that make good row groups: a few tens of thousands of rows each."""
    batches: list[Any] = []
    for batch in chain.from_iterable(file.iter_batches(_ROW_GROUP) for file in files):
        batches.append(batch)
        if sum(map(len, batches)) >= _ROW_GROUP:
            yield pa.Table.from_batches(batches)
            batches = []
    if batches:
        yield pa.Table.from_batches(batches)


def _to_merge(small: Sequence[Part], target_bytes: int) -> list[Part]:
    """Return the parts to be merged, at least two, in the order of their names."""
    chosen: list[Part] = []
    rows = size = 0
    for part in sorted(small, key=lambda part: part.rows):
        if len(chosen) >= 2 and (part.rows > rows or size + part.bytes > target_bytes):
            break
        chosen.append(part)
        rows += part.rows
        size += part.bytes
    return sorted(chosen, key=lambda part: part.path)


def _date(time_ms: int) -> str:
    """Return the day, UTC, of a time.

    >>> _date(1_767_225_599_999), _date(1_767_225_600_000)
    ('2025-12-31', '2026-01-01')
    """
    return str(np.datetime64(time_ms // _DAY_MS, "D"))


def _make_directory(path: Path) -> None:
    """Make a directory that is still there after a loss of power."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


@contextlib.contextmanager
def _actionable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogError(f"{what} ({error.strerror or error}); make room or mend the directory") from error
