"""Logged feedback as arrays: what oracles are fitted on, and what off-policy estimates are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Object = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """``n`` feedbacks in the order of their decision times, with all ``m`` actions that were offered in them.

    The set of actions belongs to the request, so rows are ragged: what is one per offered action stands in flat
    arrays of length ``m``, and row ``i`` owns the flat rows ``starts[i]`` to ``starts[i + 1]``.

    Attributes
    ----------
    decision_id : ndarray of str, shape (n,)
    time_ms : ndarray of int64, shape (n,)
        Decision times, milliseconds since 1970-01-01 UTC, ascending.
    policy_version : ndarray of str, shape (n,)
        The policy that decided.
    starts : ndarray of int64, shape (n + 1,)
        First flat row of each row; the last entry is ``m``.
    context : ndarray of float32, shape (n, context width)
        Encoded and scaled as ``engine.features.Encoder`` does, bit for bit.
    action : ndarray of float32, shape (m, action width)
        Likewise.
    action_ids : ndarray of str, shape (m,)
    available : ndarray of bool, shape (m,)
        False where the action was excluded.
    probabilities : ndarray of float64, shape (m,)
        The logged vectors, one after the other.
    chosen : ndarray of int64, shape (n,)
        Index of the chosen action within its row.
    reward : ndarray of float64, shape (n,)
    defaulted : ndarray of bool, shape (n,)
        True where the window closed without an outcome.
    """

    decision_id: Object
    time_ms: Int64
    policy_version: Object
    starts: Int64
    context: Float32
    action: Float32
    action_ids: Object
    available: Bool
    probabilities: Float64
    chosen: Int64
    reward: Float64
    defaulted: Bool

    def __len__(self) -> int:
        """Return the number of feedbacks."""
        return len(self.time_ms)

    @property
    def width(self) -> int:
        """Number of columns of one (context, action) pair."""
        return int(self.context.shape[1] + self.action.shape[1])

    @property
    def chosen_flat(self) -> Int64:
        """Flat row of each chosen action, shape (n,)."""
        return self.starts[:-1] + self.chosen

    @property
    def propensity(self) -> Float64:
        """Probability with which each chosen action was drawn, shape (n,)."""
        return self.probabilities[self.chosen_flat]

    def chosen_matrix(self) -> Float32:
        """Return the features of what was done: context and chosen action, shape (n, width)."""
        return np.concatenate([self.context, self.action[self.chosen_flat]], axis=1)

    def chosen_actions(self) -> list[str]:
        """Return the id of each chosen action."""
        return list(self.action_ids[self.chosen_flat])

    def pairs(self) -> Float32:
        """Return the features of all that could have been done, shape (m, width).

        The contexts are repeated, so take ``rows`` of a large dataset piece by piece.
        """
        return np.concatenate([np.repeat(self.context, np.diff(self.starts), axis=0), self.action], axis=1)

    def codes(self, vocabulary: Sequence[str]) -> Int64:
        """Return the code of each offered action, shape (m,): 1, 2, ... in the vocabulary's order; 0: not in it."""
        code = {action: i for i, action in enumerate(vocabulary, start=1)}
        return np.fromiter((code.get(action, 0) for action in self.action_ids), np.int64, len(self.action_ids))

    def rows(self, index: slice | Int64 | Bool) -> Dataset:
        """Return the chosen rows in the order of ``index``: a slice, row numbers, or a mask of shape (n,)."""
        selected = np.arange(len(self))[index]
        counts = np.diff(self.starts)[selected]
        starts = _starts(counts)
        flat = np.repeat(self.starts[selected] - starts[:-1], counts) + np.arange(starts[-1])
        return Dataset(
            decision_id=self.decision_id[selected],
            time_ms=self.time_ms[selected],
            policy_version=self.policy_version[selected],
            starts=starts,
            context=self.context[selected],
            action=self.action[flat],
            action_ids=self.action_ids[flat],
            available=self.available[flat],
            probabilities=self.probabilities[flat],
            chosen=self.chosen[selected],
            reward=self.reward[selected],
            defaulted=self.defaulted[selected],
        )

    def chosen_codes(self) -> tuple[tuple[str, ...], Float32]:
        """Return the chosen actions in the order of their first choice, and the place of each row's, from 1."""
        chosen = self.chosen_actions()
        vocabulary = tuple(dict.fromkeys(chosen))
        code = {action: i for i, action in enumerate(vocabulary, start=1)}
        return vocabulary, np.array([code[action] for action in chosen], dtype=np.float32)

    def decision_ids(self) -> Any:
        """Return the decision ids as a ``pyarrow`` array of large strings, shape (n,)."""
        return pa.array(self.decision_id, pa.large_string())

    def contexts(self) -> Iterator[Float32]:
        """Yield the contexts of all rows, in one piece."""
        yield self.context

    def part(self, begin: int, end: int) -> Dataset:
        """Return the rows from ``begin`` to ``end``."""
        return self.rows(slice(begin, end))

    def take(self, places: Int64) -> Dataset:
        """Return some rows by their numbers."""
        return self.rows(places)

    def load(self) -> Dataset:
        """Return the rows in memory: these."""
        return self

    def blocks(self, size: int = 65_536) -> Iterator[Dataset]:
        """Yield the rows in their order, so many at a time."""
        for begin in range(0, len(self), size):
            yield self.rows(slice(begin, begin + size))

    @classmethod
    def concatenate(cls, parts: Sequence[Dataset]) -> Dataset:
        """Return the rows of one or more datasets of the same widths, one after the other."""
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "starts"
        }
        return cls(starts=_starts(counts), **columns)

    def digest(self) -> str:
        """SHA-256 over all that the dataset holds: equal data has an equal digest, wherever it was read."""
        hasher = hashlib.sha256()
        for field in fields(self):
            array = getattr(self, field.name)
            hasher.update(f"{field.name}:{array.dtype.str}:{array.shape}".encode())
            if array.dtype == object:
                texts = [text.encode() for text in array]
                # The lengths first: without them ["ab", "c"] and ["a", "bc"] would look alike.
                hasher.update(np.fromiter(map(len, texts), np.int64, len(texts)).tobytes())
                hasher.update(b"".join(texts))
            else:
                hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()


def _starts(counts: Int64) -> Int64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
