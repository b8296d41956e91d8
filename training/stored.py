"""A window of feedback that is larger than memory: its columns as files, in the order of decision times.

``training.archive.spill`` writes them. Everything that goes over all rows does so by ``blocks`` of them, which are
ordinary datasets; what is one number a row, a small share of it all, may be had as a whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.ahead import ahead
from training.dataset import Bool, Dataset, Float32, Float64, Int64, Object

#: Rows of one block; with ten actions each, some tens of megabytes.
BLOCK = 65_536
_PIECE = 1 << 20  # bytes that are hashed at once
_TEXTS = ("decision_id", "policy_version", "action_ids")


class Column:
    """A file of numbers of one type, ``width`` in each row.

    Parameters
    ----------
    path
        The file.
    dtype
        Of its numbers.
    width
        Numbers in a row; ``None``: the rows are no vectors.

    Attributes
    ----------
    size
        Bytes of a row.
    """

    def __init__(self, path: Path, dtype: Any, width: int | None = None) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.width = width
        self.size = self.dtype.itemsize * (1 if width is None else width)
        self._file = os.open(path, os.O_RDONLY)

    def read(self, begin: int, end: int) -> NDArray[Any]:
        """Return the rows from ``begin`` to ``end``: read and not mapped, so that no page stays in this process."""
        out = np.empty(end - begin if self.width is None else (end - begin, self.width), self.dtype)
        view = out.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):  # one call reads two gibibytes at most
            count = os.preadv(self._file, [view[done:]], begin * self.size + done)
            if count == 0:
                raise EOFError(f"{self.path}: ends before row {end}; start the retraining again")
            done += count
        return out

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass(frozen=True)
class Origin:
    """The archive that a window was read from.

    Attributes
    ----------
    directory
        Of the archive.
    name
        The decision point.
    start_ms, end_ms
        Decision times that were asked for.
    """

    directory: Path
    name: str
    start_ms: int
    end_ms: int | None


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """The rows ``begin`` to ``end`` of a window on disk; see ``training.dataset.Dataset`` for the columns.

    Attributes
    ----------
    columns : mapping of str to Column
        By name. ``policy_version`` and ``action_ids`` are numbers of ``versions`` and ``actions``;
        ``decision_id_ends`` says where each id ends in the bytes of ``decision_id``. ``chosen_action``, ``chosen_id``
        and ``propensity`` stand beside them, since fitting needs no more of the actions than that.
    starts : ndarray of int64, shape (N + 1,)
        First flat row of each row of the whole window.
    actions, versions : ndarray of str
        The distinct ids of actions and versions of policies.
    begin, end : int
        Which rows of the window these are.
    origin : Origin
        Where they come from.
    """

    columns: dict[str, Column]
    starts: Int64
    actions: Object
    versions: Object
    begin: int
    end: int
    origin: Origin

    def __len__(self) -> int:
        """Return the number of feedbacks."""
        return self.end - self.begin

    @property
    def width(self) -> int:
        """Number of columns of one (context, action) pair."""
        return int(self.columns["context"].width or 0) + int(self.columns["action"].width or 0)

    @property
    def time_ms(self) -> Int64:
        """Decision times, shape (n,)."""
        return self._all("time_ms")

    @property
    def reward(self) -> Float64:
        """Rewards, shape (n,)."""
        return self._all("reward")

    @property
    def defaulted(self) -> Bool:
        """True where the window closed without an outcome, shape (n,)."""
        return self._all("defaulted")

    @property
    def propensity(self) -> Float64:
        """Probability with which each chosen action was drawn, shape (n,)."""
        return self._all("propensity")

    def part(self, begin: int, end: int) -> StoredDataset:
        """Return some of the rows, still on disk."""
        return replace(self, begin=self.begin + begin, end=self.begin + end)

    def take(self, places: Int64) -> Dataset:
        """Return some rows by their numbers, in memory."""
        return Dataset.concatenate([self.part(place, place + 1).load() for place in places.tolist()])

    def load(self) -> Dataset:
        """Return the rows in memory."""
        begin, end = self.begin, self.end
        first, last = int(self.starts[begin]), int(self.starts[end])
        return Dataset(
            decision_id=self.decision_ids().to_numpy(zero_copy_only=False),
            time_ms=self.time_ms,
            policy_version=self.versions[self._all("policy_version")],
            starts=self.starts[begin : end + 1] - first,
            context=self._all("context"),
            action=self.columns["action"].read(first, last),
            action_ids=self.actions[self.columns["action_ids"].read(first, last)],
            available=self.columns["available"].read(first, last),
            probabilities=self.columns["probabilities"].read(first, last),
            chosen=self._all("chosen"),
            reward=self.reward,
            defaulted=self.defaulted,
        )

    def blocks(self, size: int = BLOCK) -> Iterator[Dataset]:
        """Yield the rows in their order, so many at a time."""
        for begin in range(0, len(self), size):
            yield self.part(begin, min(begin + size, len(self))).load()

    def contexts(self) -> Iterator[Float32]:
        """Yield the contexts of all rows, a block at a time."""
        for begin in range(self.begin, self.end, BLOCK):
            yield self.columns["context"].read(begin, min(begin + BLOCK, self.end))

    def chosen_matrix(self, out: Float32 | None = None) -> Float32:
        """Return the features of what was done: context and chosen action, shape (n, width); ``out``: put there."""
        return np.concatenate([self._all("context"), self._all("chosen_action")], axis=1, out=out)

    def chosen_actions(self) -> list[str]:
        """Return the id of each chosen action."""
        return list(self.actions[self._all("chosen_id")])

    def chosen_codes(self) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Return the chosen actions in the order of their first choice, and the place of each row's, from 1."""
        ids = self._all("chosen_id")
        first = np.full(len(self.actions), len(ids))
        first[ids[::-1]] = np.arange(len(ids))[::-1]  # of what is written twice the last stays
        known = np.argsort(first)[: np.count_nonzero(first < len(ids))]
        code = np.zeros(len(self.actions), np.float32)
        code[known] = np.arange(1, len(known) + 1)
        return tuple(self.actions[known]), code[ids]

    def decision_ids(self) -> Any:
        """Return the decision ids as a ``pyarrow`` array of large strings, shape (n,)."""
        ends = self.columns["decision_id_ends"].read(self.begin, self.end + 1)
        texts = self.columns["decision_id"].read(int(ends[0]), int(ends[-1]))
        offsets, data = pa.py_buffer(ends - ends[0]), pa.py_buffer(texts)
        return pa.LargeStringArray.from_buffers(len(self), offsets, data)

    def digest(self) -> str:
        """SHA-256 over all that the rows hold: that of the same rows in memory (``Dataset.digest``)."""
        hasher = hashlib.sha256()
        with ThreadPoolExecutor(1) as pool:  # reads while this thread hashes
            for part in ahead(pool, lambda read: read(), self._hashed()):
                hasher.update(part)
        return hasher.hexdigest()

    def _hashed(self) -> Iterator[Callable[[], Any]]:
        """Yield what gives the bytes that the digest is of, piece by piece."""
        first, last = int(self.starts[self.begin]), int(self.starts[self.end])
        flat = {"action", "action_ids", "available", "probabilities"}
        for name in Dataset.__dataclass_fields__:
            if name == "starts":
                begin, end = self.begin, self.end + 1
                yield f"starts:{self.starts.dtype.str}:{(end - begin,)}".encode
                yield from (partial(np.subtract, self.starts[at:to], first) for at, to in _steps(begin, end))
                continue
            begin, end = (first, last) if name in flat else (self.begin, self.end)
            column = self.columns[name]
            shape = (end - begin,) if column.width is None else (end - begin, column.width)
            kind = "|O" if name in _TEXTS else column.dtype.str
            yield f"{name}:{kind}:{shape}".encode
            if name in _TEXTS:  # lengths before texts, as the digest of a dataset has them
                yield from (partial(self._lengths, name, *step) for step in _steps(begin, end))
            if name == "decision_id":
                begin, end = (int(self.columns["decision_id_ends"].read(at, at + 1)[0]) for at in (begin, end))
            yield from (partial(self._bytes, name, *step) for step in _steps(begin, end, column.size))

    def close(self) -> None:
        """Close the files."""
        for column in self.columns.values():
            column.close()

    def _all(self, name: str) -> NDArray[Any]:
        return self.columns[name].read(self.begin, self.end)

    def _lengths(self, name: str, begin: int, end: int) -> Any:
        if name == "decision_id":
            return np.diff(self.columns["decision_id_ends"].read(begin, end + 1))
        return self._text_lengths[name][self.columns[name].read(begin, end)]

    def _bytes(self, name: str, begin: int, end: int) -> Any:
        numbers = self.columns[name].read(begin, end)
        if name not in ("policy_version", "action_ids"):
            return numbers
        texts = self._texts[name].take(pa.array(numbers))
        return memoryview(texts.buffers()[2])[: int(np.frombuffer(texts.buffers()[1], np.int64)[len(texts)])]

    @cached_property
    def _texts(self) -> dict[str, Any]:
        return {
            "policy_version": pa.array(self.versions, pa.large_string()),
            "action_ids": pa.array(self.actions, pa.large_string()),
        }

    @cached_property
    def _text_lengths(self) -> dict[str, Int64]:
        return {
            name: np.array([len(text.encode()) for text in texts.to_pylist()], np.int64)
            for name, texts in self._texts.items()
        }


def _steps(begin: int, end: int, size: int = 8) -> Iterator[tuple[int, int]]:
    """Yield steps from row to row, so that rows of so many bytes each stay in the processor's cache."""
    step = max(1, _PIECE // max(1, size))
    return ((at, min(at + step, end)) for at in range(begin, end, step))


#: What training goes over: in memory, or on disk.
Feedbacks = Dataset | StoredDataset
