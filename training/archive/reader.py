"""The reader of the archive: counts of a window, and the window as a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.config import DecisionPoint
from engine.errors import LogError
from training.archive.columns import schema
from training.archive.encoding import encode
from training.archive.manifest import (
    Manifest,
    Part,
    PartMissingError,
    batches_of,
    open_part,
    read_manifest,
    reading,
)
from training.archive.order import selected, valued, within
from training.archive.spill import spill
from training.dataset import Dataset, Int64
from training.stored import Origin, StoredDataset

_T = TypeVar("_T")


class ArchiveReader:
    """Reads what is committed, also while a writer adds, merges and deletes files.

    Parameters
    ----------
    directory
        The archive; before anything was archived it may be missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def points(self) -> list[str]:
        """Return the names of the decision points with archived feedback."""
        return sorted({part.decision_point for part in self._manifest().parts})

    def offsets(self) -> dict[int, int]:
        """Return how far the feedback was archived: the next offset of each partition of the log."""
        return dict(self._manifest().offsets)

    def count(self, point: str, since_ms: int, until_ms: int | None = None) -> int:
        """Return the number of feedbacks with ``since_ms <= decision time < until_ms``.

        Reads the manifest, and the times of those files alone that lie across a bound.
        """

        def work(manifest: Manifest) -> int:
            total = 0
            for part in _overlapping(manifest, point, since_ms, until_ms):
                if since_ms <= part.min_time_ms and (until_ms is None or part.max_time_ms < until_ms):
                    total += part.rows
                else:
                    total += len(self._times(part, since_ms, until_ms))
            return total

        return self._of_one_state(work)

    def read(
        self, name: str, point: DecisionPoint, start_ms: int, end_ms: int | None = None, last: int | None = None
    ) -> Dataset:
        """Return the feedbacks with ``start_ms <= decision time < end_ms``, in the order of (time, decision id).

        The dataset, and so its digest, depends on the feedback alone and not on the files it lies in. Decisions of an
        apprentice are left out: their policy learned to match the caller, and of that no value can be estimated.

        Parameters
        ----------
        name
            The decision point.
        point
            Its configuration, under which features are encoded.
        start_ms, end_ms
            The window of decision times; ``end_ms=None``: open.
        last
            Only the newest so many.

        Raises
        ------
        ConfigError
            A feature was archived with another type or size than it is declared with.
        LogError
            A file is missing or damaged.
        """
        if last is not None and last < 1:
            raise ValueError(f"last must be at least 1, got {last}")

        def work(manifest: Manifest) -> Dataset:
            parts, first_ms = self._newest(manifest, name, start_ms, end_ms, last)
            datasets = [encode(pa.RecordBatch.from_pylist([], schema=schema(point)), point, name)]
            for part in parts:
                for batch in batches_of(self.directory, part, verify=True):
                    rows = valued(selected(batch, within(batch.column("time_ms"), first_ms, end_ms)))
                    datasets.append(encode(rows, point, part.path))
            return _in_order(datasets, last)

        return self._of_one_state(work)

    def store(
        self,
        name: str,
        point: DecisionPoint,
        start_ms: int,
        end_ms: int | None = None,
        last: int | None = None,
        *,
        directory: Path,
    ) -> StoredDataset:
        """Return what ``read`` does, the same rows in the same order, on disk; see ``training.archive.spill``.

        Parameters
        ----------
        name, point, start_ms, end_ms, last
            As for ``read``.
        directory
            Where the rows are written, of the order of their size in memory; what was in it is deleted.

        Raises
        ------
        ConfigError, LogError
            As ``read`` does; a ``LogError`` also where there is no room.
        """

        def work(manifest: Manifest) -> StoredDataset:
            parts, first_ms = self._newest(manifest, name, start_ms, end_ms, last)
            origin = Origin(self.directory, name, start_ms, end_ms)
            try:
                return spill(self.directory, parts, point, origin, (first_ms, end_ms), last, directory)
            except OSError as error:
                raise LogError(
                    f"{directory}: the window cannot be written there ({error.strerror or error}); make room, or "
                    "shorten retraining.window or set retraining.max_rows"
                ) from error

        return self._of_one_state(work)

    def batches(
        self, name: str, start_ms: int = 0, end_ms: int | None = None, *, columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """Yield the feedback of one committed state as ``pyarrow.RecordBatch``, file by file; see ``records``.

        A merge that deletes a file meanwhile ends it with ``LogError``.

        Parameters
        ----------
        name
            The decision point or recommender.
        start_ms, end_ms
            The window of decision times.
        columns
            Those to be read, of which a file may lack some; ``time_ms`` must be among them. ``None``: all.
        """
        for part in _overlapping(self._manifest(), name, start_ms, end_ms):
            for batch in batches_of(self.directory, part, verify=columns is None, columns=columns):
                yield selected(batch, within(batch.column("time_ms"), start_ms, end_ms))

    def _manifest(self) -> Manifest:
        return read_manifest(self.directory) or Manifest()

    def _of_one_state(self, work: Callable[[Manifest], _T]) -> _T:
        """Do the work on one committed state of the archive, and again on a newer one if files were merged away."""
        manifest = self._manifest()
        while True:
            try:
                return work(manifest)
            except PartMissingError as error:
                newer = self._manifest()
                if error.part in newer.parts:
                    raise
                manifest = newer

    def _newest(
        self, manifest: Manifest, name: str, start_ms: int, end_ms: int | None, last: int | None
    ) -> tuple[list[Part], int]:
        """Return the files of a window, and its first time once only the newest ``last`` rows are asked for."""
        parts = _overlapping(manifest, name, start_ms, end_ms)
        if last is None or not parts:
            return parts, start_ms
        # The times first, so that only the rows asked for are held as features.
        times = np.concatenate([self._times(part, start_ms, end_ms, of_value=True) for part in parts])
        if len(times) <= last:
            return parts, start_ms
        first_ms = int(np.partition(times, len(times) - last)[len(times) - last])
        return _overlapping(manifest, name, first_ms, end_ms), first_ms

    def _times(self, part: Part, start_ms: int, end_ms: int | None, *, of_value: bool = False) -> Int64:
        file = open_part(self.directory, part, verify=False)
        with reading(self.directory / part.path):
            table = file.read(columns=[name for name in ("time_ms", "mode") if name in file.schema_arrow.names])
        times = (valued(table) if of_value else table)["time_ms"]
        inside: Int64 = times.filter(within(times, start_ms, end_ms)).to_numpy()
        return inside


def _overlapping(manifest: Manifest, point: str, start_ms: int, end_ms: int | None) -> list[Part]:
    return [
        part
        for part in manifest.parts
        if part.decision_point == point
        and part.max_time_ms >= start_ms
        and (end_ms is None or part.min_time_ms < end_ms)
    ]


def _in_order(datasets: Sequence[Dataset], last: int | None) -> Dataset:
    dataset = Dataset.concatenate(datasets)
    keys = pa.table({"time_ms": dataset.time_ms, "decision_id": pa.array(dataset.decision_id, pa.string())})
    order = pc.sort_indices(keys, [("time_ms", "ascending"), ("decision_id", "ascending")]).to_numpy()
    return dataset.rows(order.astype(np.int64)[-last if last is not None else 0 :])
