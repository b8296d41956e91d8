"""From the archive to a window on disk, in the order of (decision time, decision id), a row group at a time.

Rows lie in the archive as their rewards came, so each is written to where it belongs among those of its day. A day is
put together in memory and written as a whole; one that is too large for that is mapped, and its pages are let go of
after each row group: the system keeps them as long as it has nothing better to do with the memory. Two threads read,
encode and place row groups, while a third orders the next day and writes the last one. So what lies in memory is the
ids and times of a day and of a few files, two row groups, and those days, none of them too large, that the next few row
groups belong to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.config import DecisionPoint
from engine.features import Encoder
from training.ahead import ahead
from training.archive.encoding import columns_of, encode_columns
from training.archive.manifest import Part, batches_of
from training.archive.order import REPEATED, Day, Ids, days
from training.archive.section import Section
from training.dataset import Int64
from training.stored import Column, Origin, StoredDataset

_THREADS = 2
_AHEAD = 8  # row groups that wait for the threads while a day is ordered or written
#: Most bytes of a day that is put together in memory.
IN_MEMORY = 192 << 20
_ROW: dict[str, Any] = {
    "time_ms": np.int64,
    "policy_version": np.int32,
    "chosen": np.int64,
    "reward": np.float64,
    "defaulted": np.bool_,
    "chosen_id": np.int32,
    "propensity": np.float64,
}
_FLAT: dict[str, Any] = {"action_ids": np.int32, "available": np.bool_, "probabilities": np.float64}


class _Numbers:
    """Numbers distinct texts in the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def add(self, texts: Iterable[str]) -> None:
        """Number those that are new."""
        for text in texts:
            self._known.setdefault(text, len(self._known))

    def of(self, texts: Any) -> NDArray[np.int32]:
        """Return the number of each text of an Arrow array, a dictionary of texts that were added."""
        numbers = np.array([self._known[text] for text in texts.dictionary.to_pylist()], np.int32)
        found: NDArray[np.int32] = numbers[texts.indices.to_numpy(zero_copy_only=False)]
        return found

    def texts(self) -> NDArray[np.object_]:
        return np.array(list(self._known), dtype=np.object_)


def spill(
    archive: Path,
    parts: Sequence[Part],
    point: DecisionPoint,
    origin: Origin,
    window: tuple[int, int | None],
    last: int | None,
    directory: Path,
) -> StoredDataset:
    """Write the rows of some files of the archive to a directory of their own, and return them.

    Parameters
    ----------
    archive
        Its directory.
    parts
        The files.
    point
        The configuration under which features are encoded.
    origin
        Kept with the rows.
    window
        Decision times; end ``None``: open.
    last
        Only the newest so many rows.
    directory
        Made anew; what was in it is deleted.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    writing = _Window(archive, point, directory)
    try:
        with (
            (directory / "decision_id").open("wb") as ids,
            (directory / "decision_id_ends").open("wb") as ends,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            found = days(archive, parts, window, last, Ids(ids, ends), pool)
            for day in ahead(pool, writing.put, writing.groups(found), _AHEAD):
                if day is not None:
                    day.write()
    except BaseException:
        for column in writing.columns:  # a file that is open keeps its room on the disk, also when it is deleted
            column.close()
        raise
    columns = {column.path.name: column for column in writing.columns}
    columns["decision_id"] = Column(directory / "decision_id", np.uint8)
    columns["decision_id_ends"] = Column(directory / "decision_id_ends", np.int64)
    starts = np.concatenate(writing.starts)
    return StoredDataset(columns, starts, writing.actions.texts(), writing.versions.texts(), 0, len(starts) - 1, origin)


class _DayRows:
    """The rows of one day, while they are put in their places."""

    def __init__(self, rows: dict[str, Section], flat: dict[str, Section], begins: Int64) -> None:
        self.rows, self.flat = rows, flat
        self._begins = begins  # first flat row of each row
        counts = np.diff(begins)
        #: Actions of each row, where all have as many.
        self._alike = int(counts[0]) if len(counts) and (counts == counts[0]).all() else None

    def put(self, places: Int64, arrays: dict[str, Any]) -> None:
        """Write rows to their places."""
        starts = arrays["starts"]
        for name, section in self.rows.items():
            section.put(places, arrays[name])
        if self._alike is None:
            places = np.repeat(self._begins[places] - starts[:-1], np.diff(starts)) + np.arange(starts[-1])
        for name, section in self.flat.items():
            section.put(places, arrays[name], self._alike or 1)

    def write(self) -> None:
        """Write what is not on disk."""
        for section in (*self.rows.values(), *self.flat.values()):
            section.write()


class _Window:
    """The columns of a window, and how far they are written."""

    def __init__(self, archive: Path, point: DecisionPoint, directory: Path) -> None:
        self._archive, self._point = archive, point
        encoder = Encoder(point)
        for name in (*_ROW, *_FLAT, "context", "chosen_action", "action"):
            (directory / name).touch()
        self._row = {name: Column(directory / name, dtype) for name, dtype in _ROW.items()}
        self._row["context"] = Column(directory / "context", np.float32, encoder.context.width)
        self._row["chosen_action"] = Column(directory / "chosen_action", np.float32, encoder.action.width)
        self._flat = {name: Column(directory / name, dtype) for name, dtype in _FLAT.items()}
        self._flat["action"] = Column(directory / "action", np.float32, encoder.action.width)
        self.columns = [*self._row.values(), *self._flat.values()]
        self.versions, self.actions = _Numbers(), _Numbers()
        self.starts = [np.zeros(1, np.int64)]
        self._ends = 0, 0  # how many rows and flat rows the days so far have

    def groups(self, found: Iterable[Day]) -> Iterator[tuple[_DayRows, Part, int, Int64, bool]]:
        """Yield the row groups of some days: with the places of their rows, and whether it is the last of its day."""
        for day in found:
            rows = self._rows(day.counts)
            for keys in day.files:
                self.versions.add(keys.texts[0])
                self.actions.add(keys.texts[1])
            tasks = [
                (keys.part, group, places[keys.groups[group] : keys.groups[group + 1]])
                for keys, places in zip(day.files, day.places, strict=True)
                for group in range(len(keys.groups) - 1)
            ]
            for number, task in enumerate(tasks, start=1):
                yield rows, *task, number == len(tasks)

    def put(self, task: tuple[_DayRows, Part, int, Int64, bool]) -> _DayRows | None:
        """Put one row group in its places; return the day with its last one."""
        day, part, group, places, is_last = task
        at = 0
        columns = columns_of(self._point) - {"decision_id"}
        for batch in batches_of(self._archive, part, verify=False, columns=columns, group=group, texts=REPEATED):
            mine = places[at : at + len(batch)]
            at += len(batch)
            keep = mine >= 0
            if not keep.all():
                batch, mine = batch.filter(pa.array(keep)), mine[keep]
            if len(mine):
                day.put(mine, self._encoded(batch, part))
        return day if is_last else None

    def _encoded(self, batch: Any, part: Part) -> dict[str, Any]:
        arrays = encode_columns(batch, self._point, part.path)
        arrays["policy_version"] = self.versions.of(arrays["policy_version"])
        arrays["action_ids"] = self.actions.of(arrays["action_ids"])
        chosen = arrays["starts"][:-1] + arrays["chosen"]
        arrays["chosen_id"] = arrays["action_ids"][chosen]
        arrays["chosen_action"] = arrays["action"][chosen]
        arrays["propensity"] = arrays["probabilities"][chosen]
        return arrays

    def _rows(self, counts: Int64) -> _DayRows:
        """Return the rows of the next day, to be put in their places."""
        first, first_flat = self._ends
        ends = np.cumsum(counts)
        self.starts.append(first_flat + ends)
        begins = np.concatenate([np.zeros(1, np.int64), ends])
        n, m = len(counts), int(begins[-1])
        self._ends = first + n, first_flat + m
        size = sum(n * column.size for column in self._row.values()) + sum(m * c.size for c in self._flat.values())
        hold = size <= IN_MEMORY
        return _DayRows(
            {name: Section(column, first, n, hold=hold) for name, column in self._row.items()},
            {name: Section(column, first_flat, m, hold=hold) for name, column in self._flat.items()},
            begins,
        )
