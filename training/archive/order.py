"""Where each row of the archive belongs in the order of (decision time, decision id), a day at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.records import MODE_APPRENTICE, mode_name
from training.ahead import ahead
from training.archive.manifest import Part, open_part, reading
from training.dataset import Bool, Int64
from training.stored import BLOCK

#: Columns of texts that repeat, as Parquet writes their paths: they are read as dictionaries.
REPEATED = ("policy_version", "actions.list.element")
_BY = [("time_ms", "ascending"), ("decision_id", "ascending")]


@dataclass(frozen=True)
class Keys:
    """What a file says of the places of its rows.

    Attributes
    ----------
    part
        The file.
    groups
        First row of each row group, and the end.
    kept : ndarray of bool
        Which rows are of the window.
    counts : ndarray of int64
        How many actions each of them had.
    rows : pyarrow.Table
        Times and ids of those that are kept.
    texts
        The distinct versions of policies, and the distinct actions.
    """

    part: Part
    groups: Int64
    kept: Bool
    counts: Int64
    rows: Any
    texts: tuple[list[str], list[str]]


@dataclass(frozen=True)
class Day:
    """The rows of a day, as its files have them.

    Attributes
    ----------
    files
        Its files.
    places : list of ndarray of int64
        Of each file, where each row belongs among those of the day; -1: it is left out.
    counts : ndarray of int64
        How many actions each row of the day has, in the order of the rows.
    """

    files: list[Keys]
    places: list[Int64]
    counts: Int64


def days(
    archive: Path, parts: Sequence[Part], window: tuple[int, int | None], last: int | None, ids: Ids, pool: Executor
) -> Iterator[Day]:
    """Yield the days of a window, and write their ids; files are verified, for it is the first time they are read.

    Parameters
    ----------
    archive, parts
        The directory, and the files.
    window
        Decision times; end ``None``: open.
    last
        Only the newest so many rows.
    ids
        Where ids are written.
    pool
        Reads files ahead.
    """
    excess = 0
    if last is not None:
        excess = max(0, sum(ahead(pool, partial(_count, archive, window), parts)) - last)
    files = ahead(pool, partial(_keys, archive, window), sorted(parts, key=lambda part: (part.date, part.path)))
    for _, of_day in groupby(files, lambda keys: keys.part.date):
        day = list(of_day)
        rows = pa.concat_tables([keys.rows for keys in day])
        order = _order(rows)
        dropped = min(excess, len(order))
        excess -= dropped
        order = order[dropped:]
        kept = np.concatenate([keys.kept for keys in day])
        place = np.full(len(kept), -1, np.int64)
        place[np.flatnonzero(kept)[order]] = np.arange(len(order))
        ids.write(rows["decision_id"], order)
        ends = np.cumsum([len(keys.kept) for keys in day])[:-1]
        yield Day(day, np.split(place, ends), np.concatenate([keys.counts for keys in day])[order])


class Ids:
    """The decision ids of a window: a file of their texts one after the other, and one of where each ends."""

    def __init__(self, texts: BinaryIO, ends: BinaryIO) -> None:
        self._texts, self._ends = texts, ends
        ends.write(np.zeros(1, np.int64).tobytes())

    def write(self, ids: Any, order: Int64) -> None:
        """Write some texts of a chunked array, in the order of their numbers."""
        large = ids.cast(pa.large_string()).combine_chunks()
        for begin in range(0, len(order), BLOCK):
            texts = large.take(pa.array(order[begin : begin + BLOCK]))
            offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
            self._ends.write((self._texts.tell() + offsets[1:] - offsets[0]).tobytes())
            self._texts.write(memoryview(texts.buffers()[2])[int(offsets[0]) : int(offsets[-1])])


def _keys(archive: Path, window: tuple[int, int | None], part: Part) -> Keys:
    file = open_part(archive, part, verify=True, texts=REPEATED)
    table = _read(file, archive / part.path, ["time_ms", "decision_id", "actions", "policy_version", "mode"])
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    kept = _kept(table, window)
    rows = table.select([name for name, _ in _BY])
    actions, versions = table["actions"], table["policy_version"]
    return Keys(
        part=part,
        groups=np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]),
        kept=kept,
        counts=pc.list_value_length(actions).to_numpy().astype(np.int64)[kept],
        rows=rows if kept.all() else rows.filter(pa.array(kept)),
        texts=(_distinct(versions.chunks), _distinct(chunk.values for chunk in actions.chunks)),
    )


def _order(rows: Any) -> Int64:
    """Return the order of (time, id): by times, which are quickly sorted, and by ids where times are the same."""
    times = rows["time_ms"].to_numpy()
    order = np.argsort(times)
    same = np.diff(times[order]) == 0
    again = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    some = pa.array(np.sort(order[again]))
    order[again] = some.take(pc.sort_indices(rows.take(some), _BY)).to_numpy()
    return order


def _count(archive: Path, window: tuple[int, int | None], part: Part) -> int:
    file = open_part(archive, part, verify=False)
    return int(np.count_nonzero(_kept(_read(file, archive / part.path, ["time_ms", "mode"]), window)))


def _read(file: Any, path: Path, columns: list[str]) -> Any:
    here = [name for name in columns if name in file.schema_arrow.names]
    with reading(path):
        # Group by group: lists of dictionaries that differ cannot be read at once.
        groups = range(file.num_row_groups)
        return pa.concat_tables(file.read_row_group(group, columns=here, use_threads=False) for group in groups)


def _kept(table: Any, window: tuple[int, int | None]) -> Bool:
    kept: Bool = within(table["time_ms"], *window).to_numpy()
    return kept if "mode" not in table.schema.names else kept & of_value(table["mode"]).to_numpy()


def _distinct(chunks: Any) -> list[str]:
    """Return the texts of the dictionaries of some arrays, in the order in which they came."""
    return list(dict.fromkeys(text for chunk in chunks for text in chunk.dictionary.to_pylist()))


def selected(rows: Any, mask: Any) -> Any:
    """Return the rows for which the mask is true; without a copy where it is so for all."""
    return rows if pc.all(mask, skip_nulls=False).as_py() else rows.filter(mask)


def valued(rows: Any) -> Any:
    """Return the rows of which a value can be estimated; files of before there were modes have no others."""
    return selected(rows, of_value(rows["mode"])) if "mode" in rows.schema.names else rows


def of_value(mode: Any) -> Any:
    """Return the mask of the modes of decisions of which a value can be estimated."""
    return pc.not_equal(mode, mode_name(MODE_APPRENTICE))


def within(times: Any, start_ms: int, end_ms: int | None) -> Any:
    """Return the mask of times in ``[start_ms, end_ms)``; end ``None``: open."""
    after = pc.greater_equal(times, start_ms)
    return after if end_ms is None else pc.and_(after, pc.less(times, end_ms))
