"""Requests whose features are all packed: encoded many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from engine.compiled import compiled, read
from engine.features import Encoder, Float32
from engine.records import Action

Int64 = NDArray[np.int64]

_FLOAT32 = np.dtype("<f4")
_FOUND: Any = numba.types.Tuple((numba.types.float32[:, ::1], numba.boolean))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, eq=False)
class ActionSet:
    """Actions of a request, none of which has named features, and what follows from them alone.

    Attributes
    ----------
    ids
        In their order; none is empty, and none stands twice.
    codes, available
        As in ``Encoded``.
    every
        Whether all of them are available.
    counts
        How many there are, as an array.
    longest
        Characters of the longest id.
    """

    ids: tuple[str, ...]
    codes: Int64
    available: NDArray[np.bool_]
    every: bool
    counts: Int64
    longest: int


class PackedEncoder:
    """What ``Encoder.encode`` gives of packed requests, to the bit; ``None`` where it has to look, or to refuse.

    Parameters
    ----------
    encoder
        Of the same decision point and vocabulary.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._context = encoder.context.numeric.astype(np.int64)
        self._action = (encoder.context.width + encoder.action.numeric).astype(np.int64)
        self._context_bytes = 4 * len(self._context)
        self._action_bytes = 4 * len(self._action)

    def actions(self, messages: Sequence[bytes]) -> ActionSet | None:
        """Return the set that serialized actions make; ``None`` where one has features, or they cannot be offered."""
        try:
            actions = [Action.FromString(message) for message in messages]
        except DecodeError:
            return None
        ids = tuple(action.id for action in actions)
        available = np.array([not action.excluded for action in actions], dtype=np.bool_)
        named = any(action.features for action in actions)
        if named or "" in ids or len(set(ids)) < len(ids) or not available.any() or not self._encoder.takes(len(ids)):
            return None
        codes = np.array([self._encoder.codes.get(identity, 0) for identity in ids], dtype=np.int64)
        return ActionSet(ids, codes, available, bool(available.all()), np.array([len(ids)]), max(map(len, ids)))

    def fits(self, context: bytes, packed_actions: bytes, count: int) -> bool:
        """Say whether the packed features of a request have the lengths of the schema."""
        return len(context) == self._context_bytes and len(packed_actions) == self._action_bytes * count

    def rows(self, contexts: bytes, packed_actions: bytes, counts: Int64) -> Float32 | None:
        """Return the rows of requests, one after the other; ``None`` where a number is not finite.

        Parameters
        ----------
        contexts, packed_actions
            The packed features of each request, that fit, in a row.
        counts : ndarray of int64, shape (n_requests,)
            How many actions each has.
        """
        X, finite = _rows(
            np.frombuffer(contexts, _FLOAT32),
            np.frombuffer(packed_actions, _FLOAT32),
            counts,
            self._context,
            self._action,
            self._encoder.scale,
        )
        return X if finite else None


@compiled(
    _FOUND(
        read(numba.float32, 1),
        read(numba.float32, 1),
        read(numba.int64, 1),
        read(numba.int64, 1),
        read(numba.int64, 1),
        read(numba.float32, 1),
    )
)
def _rows(
    contexts: Float32, actions: Float32, counts: Int64, context_columns: Int64, action_columns: Int64, scale: Float32
) -> tuple[Float32, bool]:
    """Lay scaled numbers into their columns; the second part is false where one is not finite."""
    X = np.zeros((counts.sum(), len(scale)), np.float32)
    finite = True
    row = 0
    for request in range(len(counts)):
        first = row
        for place in range(len(context_columns)):
            column = context_columns[place]
            X[row, column] = contexts[request * len(context_columns) + place] * scale[column]
            finite &= np.isfinite(X[row, column])
        for _ in range(counts[request]):
            for column in context_columns:
                X[row, column] = X[first, column]
            for place in range(len(action_columns)):
                column = action_columns[place]
                X[row, column] = actions[row * len(action_columns) + place] * scale[column]
                finite &= np.isfinite(X[row, column])
            row += 1
    return X, finite
