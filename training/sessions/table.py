"""Sessions out of a table: Parquet or CSV, one row an item that was shown."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.recommender.fields import SIDES
from training.sessions.rolling import RollingSource
from training.sessions.schema import FieldColumn, TableSchema
from training.sessions.sessions import Sessions, SessionSource

Int64 = NDArray[np.int64]
_BATCH = 16_384  # rows that are read at once


def open_table(path: Path, schema: TableSchema) -> SessionSource:
    """Return the sessions of a table, with the rolling statistics that its schema asks for.

    Raises ``ConfigError`` where the table cannot be read or does not have what the schema names.
    """
    source = TableSource(path, schema)
    statistics = schema.statistics()
    return RollingSource(source, statistics, schema.rolling.buckets) if statistics else source


class TableSource:
    """The table's own columns, read in batches; the rows of a session must stand together.

    Memory is bounded by a batch, the sessions asked for, and the ids of a day's sessions. Of a Parquet file whose rows
    are ordered by day, the groups of other days are passed over; a CSV file is gone through for each day.

    Parameters
    ----------
    path
        A file ``.parquet`` or ``.csv``, or a directory of one of them.
    schema
        What its columns are.

    Raises
    ------
    ConfigError
        It cannot be read, or lacks a column.
    """

    def __init__(self, path: Path, schema: TableSchema) -> None:
        self._path, self._schema = path, schema
        self.user, self.item = schema.fields("user"), schema.fields("item")
        self.tasks = tuple(schema.labels)
        self._format = "csv" if path.suffix == ".csv" or (path.is_dir() and any(path.rglob("*.csv"))) else "parquet"
        try:
            self._table = ds.dataset(path, format=self._format)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{path}: cannot be read: {error}; bring Parquet (.parquet) or CSV (.csv)") from error
        names = self._table.schema.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{path}: two columns are called {twice[0]!r}; rename one")
        for role, column in self._wanted():
            if column not in names:
                raise ConfigError(f"{role}: {path} has no column {column!r}; it has: {', '.join(names)}")
        self._days: list[int] | None = None

    def days(self) -> Sequence[int]:
        """Return the days of the table, rising; a date is the number of days since 1970-01-01."""
        if self._days is None:
            found: set[int] = set()
            for batch in self._batches([self._schema.day], None):
                found.update(np.unique(self._day_numbers(batch.column(0))).tolist())
            self._days = sorted(found)
            if not self._days:
                raise ConfigError(f"{self._path}: has no rows")
        return self._days

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a day's sessions in the order of the table.

        Raises ``ConfigError`` that names column, session and remedy where the rows are not as the schema says.
        """
        seen: set[Any] = set()
        held: list[Any] = []  # batches not yet yielded
        rows = 0
        columns = [column for _, column in self._wanted()]
        for batch in self._batches(list(dict.fromkeys(columns)), day):
            mine = batch.filter(pa.array(self._day_numbers(batch.column(self._schema.day)) == day))
            held.append(mine)
            rows += mine.num_rows
            if rows >= _BATCH:
                held, rows = yield from self._cut(day, held, sessions, seen, last=False)
        yield from self._cut(day, held, sessions, seen, last=True)

    def _wanted(self) -> Iterator[tuple[str, str]]:
        """Yield every column that the schema names, and where it does."""
        yield "day", self._schema.day
        yield "session", self._schema.session
        yield from ((f"labels.{task}", column) for task, column in self._schema.labels.items())
        for side in SIDES:
            for name, declared in self._schema.columns(side).items():
                yield f"{side}.{name}", declared.column or name

    def _batches(self, columns: list[str], day: int | None) -> Iterator[Any]:
        where = None if day is None else self._only(day)
        try:
            yield from self._table.to_batches(columns=columns, filter=where, batch_size=_BATCH)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{self._path}: cannot be read: {error}") from error

    def _only(self, day: int) -> Any:
        """Return a condition that lets whole groups of rows be passed over, or nothing."""
        kind = self._table.schema.field(self._schema.day).type
        if pa.types.is_integer(kind):
            return ds.field(self._schema.day) == day
        if pa.types.is_date32(kind):
            return ds.field(self._schema.day) == pa.scalar(day, pa.int32()).cast(pa.date32())
        return None

    def _day_numbers(self, column: Any) -> Int64:
        role = f"day: column {self._schema.day!r} of {self._path}"
        if column.null_count:
            raise ConfigError(f"{role} has an empty cell; every row needs its day")
        try:
            if pa.types.is_integer(column.type):
                return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
            if pa.types.is_string(column.type):
                column = column.cast(pa.timestamp("us"))
            if pa.types.is_timestamp(column.type):  # without its zone it is the time in UTC
                column = column.cast(pa.timestamp(column.type.unit)).cast(pa.date32())
            if pa.types.is_date(column.type):
                days = column.cast(pa.date32()).cast(pa.int32())
                return np.asarray(days.to_numpy(zero_copy_only=False), dtype=np.int64)
        except pa.ArrowException as error:
            raise ConfigError(f"{role}: {error}; give whole numbers, dates (2026-01-31) or times") from error
        raise ConfigError(f"{role} is {column.type}; give whole numbers, dates (2026-01-31) or times")

    def _cut(
        self, day: int, held: list[Any], sessions: int, seen: set[Any], *, last: bool
    ) -> Generator[Sessions, None, tuple[list[Any], int]]:
        """Yield what is whole of the held rows; return what is left, since its session may go on."""
        if not sum(batch.num_rows for batch in held):
            return [], 0
        table = pa.Table.from_batches(held).combine_chunks()
        ids = table.column(self._schema.session).combine_chunks()
        if ids.null_count:
            role = f"session: column {self._schema.session!r} of {self._path}"
            raise ConfigError(f"{role} has an empty cell on day {day}; every row needs its session")
        changed = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
        starts = np.append(0, np.flatnonzero(changed) + 1)
        ends = np.append(starts[1:], len(ids))
        whole = len(starts) if last else len(starts) - 1
        for first in range(0, whole, sessions):
            stop = min(first + sessions, whole)
            for identity in ids.take(pa.array(starts[first:stop])).to_pylist():
                if identity in seen:
                    raise ConfigError(
                        f"session: {identity!r} of day {day} comes twice in {self._path} with others between; "
                        f"order the table by {self._schema.day} and {self._schema.session}"
                    )
                seen.add(identity)
            rows = table.slice(int(starts[first]), int(ends[stop - 1] - starts[first]))
            yield self._sessions(day, rows, starts[first:stop] - starts[first])
        left = table.slice(int(starts[whole])) if whole < len(starts) else table.slice(len(ids))
        return left.to_batches(), left.num_rows

    def _sessions(self, day: int, rows: Any, starts: Int64) -> Sessions:
        n = rows.num_rows
        sizes = np.diff(np.append(starts, n))
        session = np.repeat(np.arange(len(starts), dtype=np.int32), sizes)
        firsts = pa.array(starts)
        for name, declared in self._schema.user.items():
            self._check_constant(rows, declared.column or name, firsts, session, f"user.{name}")
        columns = [
            {
                name: self._column(table.column(declared.column or name).combine_chunks(), declared, f"{side}.{name}")
                for name, declared in self._schema.columns(side).items()
            }
            for side, table in zip(SIDES, (rows.take(firsts), rows), strict=True)
        ]
        labels = [self._labels(rows.column(column), task, column) for task, column in self._schema.labels.items()]
        return Sessions(day, columns[0], columns[1], session, np.stack(labels, axis=1))

    def _check_constant(self, rows: Any, column: str, firsts: Any, session: NDArray[np.int32], role: str) -> None:
        cells = rows.column(column).combine_chunks()
        if pa.types.is_nested(cells.type):  # Arrow does not compare lists
            return
        if pa.types.is_floating(cells.type):
            cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
        same = pc.equal(cells, cells.take(firsts).take(pa.array(session)))
        if pc.any(pc.invert(same)).as_py():
            row = int(np.flatnonzero(pc.invert(same.fill_null(True)).to_numpy(zero_copy_only=False))[0])
            raise ConfigError(
                f"{role}: column {column!r} changes within session {rows.column(self._schema.session)[row].as_py()!r}; "
                "a user field has one value in a session, so declare it below item"
            )

    def _labels(self, cells: Any, task: str, column: str) -> NDArray[np.float32]:
        role = f"labels.{task}"
        try:
            values = np.asarray(cells.combine_chunks().cast(pa.float32()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise ConfigError(f"{role}: column {column!r} of {self._path} is no column of 0 and 1: {error}") from error
        if wrong := [value for value in np.unique(values).tolist() if value not in (0.0, 1.0)]:
            raise ConfigError(f"{role}: column {column!r} of {self._path} holds {wrong[0]}; a label is 0 or 1")
        return values

    def _column(self, cells: Any, declared: FieldColumn, role: str) -> NDArray[Any]:
        """Return a column as ``FieldSpace.encode`` takes it."""
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        try:
            match declared.kind:
                case "statistical":
                    return np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False))
                case "categorical":
                    return _categories(cells)
                case "sequential":
                    return _lists(cells, declared.separator)
                case _:
                    return _vectors(cells, declared)
        except (pa.ArrowException, ValueError) as error:
            raise ConfigError(
                f"{role}: the column of type {cells.type} cannot be {declared.kind}: {error}; correct the schema"
            ) from error


def _categories(cells: Any) -> NDArray[Any]:
    if pa.types.is_floating(cells.type) or (pa.types.is_integer(cells.type) and not cells.null_count):
        return np.asarray(cells.to_numpy(zero_copy_only=False))
    return np.asarray(cells.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=np.object_)


def _lists(cells: Any, separator: str) -> NDArray[np.object_]:
    if not pa.types.is_nested(cells.type):
        texts = cells.cast(pa.string()).to_pylist()
        found: Sequence[Any] = [text.split(separator) if text else [] for text in texts]
    else:
        found = cells.to_pylist()
    lists = np.empty(len(found), dtype=np.object_)
    for row, entries in enumerate(found):
        lists[row] = entries
    return lists


def _vectors(cells: Any, declared: FieldColumn) -> NDArray[np.float32]:
    given = _lists(cells, declared.separator) if not pa.types.is_nested(cells.type) else cells.to_pylist()
    vectors = np.zeros((len(given), declared.length), dtype=np.float32)
    for row, numbers in enumerate(given):
        if numbers is not None and len(numbers):
            if len(numbers) != declared.length:
                raise ValueError(f"row {row + 1} has {len(numbers)} numbers, and not {declared.length}")
            vectors[row] = numbers
    return vectors
