"""The archive of a recommender as sessions: a list is a session, its slots are rows, and a day is a day of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.config import CategoryField, NumberField, Recommender, RecommenderField, VectorField
from engine.recommender.declared import declared_fields
from engine.recommender.fields import Field
from training.archive.lists import ITEM, USER
from training.archive.reader import ArchiveReader
from training.sessions import Sessions

DAY_MS = 86_400_000


@dataclass(frozen=True)
class ListSessions:
    """Lists that a recommender has shown, with what came of each slot: a ``SessionSource``.

    Training sees the items in slots alone, each with the features that the model saw then. A day is one of UTC, by the
    time of the decision; its lists come in the order of time and id, however the archive's files were merged. What is
    read of a day, without candidates and their features, is in memory at once.

    Parameters
    ----------
    archive, name
        Where the feedback is, and of which recommender.
    recommender
        As it is configured now; a field that the archive has no column for counts as missing.
    start_ms, end_ms
        Decision times: from the one, and before the other.
    """

    archive: ArchiveReader
    name: str
    recommender: Recommender
    start_ms: int
    end_ms: int

    @property
    def user(self) -> tuple[Field, ...]:
        """The fields of the user side."""
        return declared_fields(self.recommender.user)

    @property
    def item(self) -> tuple[Field, ...]:
        """The fields of the item side."""
        return declared_fields(self.recommender.item)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self.recommender.tasks)

    def days(self) -> Sequence[int]:
        """Return the days on which there are lists, rising."""
        found: set[int] = set()
        for batch in self.archive.batches(self.name, self.start_ms, self.end_ms, columns=["time_ms"]):
            found.update((batch.column("time_ms").to_numpy() // DAY_MS).tolist())
        return sorted(found)

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a day's lists in their order, at most ``sessions`` at once."""
        start_ms, end_ms = max(self.start_ms, day * DAY_MS), min(self.end_ms, (day + 1) * DAY_MS)
        wanted = ["time_ms", "decision_id", "slots", "tasks", "slot_values"]
        wanted += [USER + name for name in self.recommender.user] + [ITEM + name for name in self.recommender.item]
        batches = list(self.archive.batches(self.name, start_ms, end_ms, columns=wanted))
        if not batches:
            return
        # Files of different times may have different columns: those of another configuration.
        table = pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="default")
        table = table.take(pc.sort_indices(table, [("time_ms", "ascending"), ("decision_id", "ascending")]))
        for start in range(0, table.num_rows, sessions):
            yield self._sessions(day, table.slice(start, sessions).combine_chunks())

    def _sessions(self, day: int, table: Any) -> Sessions:
        counts = pc.list_value_length(table["slots"]).to_numpy().astype(np.int64)
        n, rows = len(counts), int(counts.sum())
        names = set(table.schema.names)
        user = {
            name: _column(field, table[USER + name] if USER + name in names else None, n)
            for name, field in self.recommender.user.items()
        }
        item = {
            name: _column(field, pc.list_flatten(table[ITEM + name]) if ITEM + name in names else None, rows)
            for name, field in self.recommender.item.items()
        }
        labels = np.zeros((rows, len(self.tasks)), np.float32)
        place = {task: column for column, task in enumerate(self.tasks)}
        start = 0
        for tasks, values, count in zip(
            table["tasks"].to_pylist(), table["slot_values"].to_pylist(), counts.tolist(), strict=True
        ):
            matrix = np.array(values, np.float32).reshape(count, len(tasks))
            for column, task in enumerate(tasks):
                if task in place:
                    labels[start : start + count, place[task]] = matrix[:, column]
            start += count
        return Sessions(day, user, item, np.repeat(np.arange(n, dtype=np.int32), counts), labels)


def _column(field: RecommenderField, values: Any, n: int) -> Any:
    match field:
        case NumberField():
            if values is None:
                return np.full(n, np.nan)
            return values.cast(pa.float64()).to_numpy().astype(np.float64)
        case CategoryField():
            return np.array([None] * n if values is None else values.to_pylist(), dtype=object)
        case VectorField():
            found = np.zeros((n, field.size), np.float32)
            for row, vector in enumerate([] if values is None else values.to_pylist()):
                if vector is not None:
                    found[row] = vector
            return found
        case _:
            lists = np.empty(n, dtype=object)
            for row, entries in enumerate([()] * n if values is None else values.to_pylist()):
                lists[row] = () if entries is None else tuple(entries)
            return lists
