"""Batches of whole sessions in shapes that seldom change, so that a step is compiled once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Kind, Rows, Side
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import Float32, Lookup
from training.elbo_tds.embeddings import Int32, Layout
from training.elbo_tds.inputs import SideRows
from training.sessions import Sessions


@dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded sessions: rows of users, one a session, rows of items, and each item row's session."""

    user: Rows
    item: Rows
    session: Int32
    labels: Float32

    @classmethod
    def of(cls, space: FieldSpace, chunk: Sessions) -> Encoded:
        """Return the encoded form of raw sessions."""
        return cls(space.encode("user", chunk.user), space.encode("item", chunk.item), chunk.session, chunk.labels)

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self.user)

    def part(self, start: int, stop: int) -> Encoded:
        """Return the sessions from ``start`` to before ``stop``."""
        low, high = np.searchsorted(self.session, [start, stop])
        return Encoded(
            self.user.take(np.arange(start, min(stop, len(self)))),
            self.item.take(np.arange(low, high)),
            self.session[low:high] - np.int32(start),
            self.labels[low:high],
        )

    def parts(self, sessions: int) -> Iterator[Encoded]:
        """Yield its sessions, so many at once; those without a row at the end come too."""
        for start in range(0, len(self), sessions):
            yield self.part(start, start + sessions)


class Batch(NamedTuple):
    """What a step reads; rows of weight 0 are padding.

    Attributes
    ----------
    user, item
        Rows of the sides, codes as places in ``active``.
    active : int32, shape (U,)
        Rows of the table of codes that come in the batch, each once; then a row beyond the table as padding.
    session : int32, shape (n,)
        User row of each item row.
    labels : float32, shape (n, T)
    weight : float32, shape (n,)
        Of each row in the loss; their sum is 1.
    environments : float32, shape (K, n)
        Weights of the rows in each environment, of sum 1, or 0 for one that is not there; K is 0 without a penalty.
    """

    user: SideRows
    item: SideRows
    active: jax.Array
    session: jax.Array
    labels: jax.Array
    weight: jax.Array
    environments: jax.Array


@dataclass(frozen=True, eq=False)
class Batcher:
    """Makes batches for one space and layout.

    Parameters
    ----------
    space, layout
        Whose codes, and their rows.
    sessions
        User rows that a batch has room for.
    environments
        K.
    """

    space: FieldSpace
    layout: Layout
    sessions: int
    environments: int = 0

    def batch(self, parts: Sequence[Encoded]) -> Batch:
        """Return the batch of today's sessions, and of one part for each earlier day that is an environment.

        The loss weighs the rows of the first part alone.
        """
        counts = [len(part.session) for part in parts]
        n, users = padded(sum(counts)), self.sessions * len(parts)
        if self.environments:
            users = self.sessions * self.environments
        session = np.zeros(n, np.int32)
        weight = np.zeros(n, np.float32)
        environments = np.zeros((self.environments, n), np.float32)
        labels = np.zeros((n, parts[0].labels.shape[1]), np.float32)
        row = user = 0
        for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
            rows = slice(row, row + count)
            session[rows] = part.session + user
            labels[rows] = part.labels
            if number == 0:
                weight[rows] = 1.0 / max(count, 1)
            if self.environments:
                environments[number, rows] = 1.0 / max(count, 1)
            row, user = row + count, user + len(part)
        user_rows, item_rows = _joined([part.user for part in parts]), _joined([part.item for part in parts])
        table_rows: list[NDArray[np.int64]] = []
        for rows_of, lookups in (
            (user_rows, (self._lookup("user", "categorical"), self._lookup("user", "sequential"))),
            (item_rows, (self._lookup("item", "categorical"), self._lookup("item", "sequential"))),
        ):
            there = rows_of.sequential != 0
            table_rows += [lookups[0].rows(rows_of.categorical).ravel(), lookups[1].rows(rows_of.sequential)[there]]
        found, places = np.unique(np.concatenate(table_rows), return_inverse=True)
        split = np.split(places.astype(np.int32), np.cumsum([len(part) for part in table_rows])[:-1])
        room = sum(
            many * (rows.categorical.shape[1] + rows.sequential.shape[1] * rows.sequential.shape[2])
            for many, rows in ((users, user_rows), (n, item_rows))
        )
        # There is always one place, so that padding has something to point at.
        active = np.full(max(room, 1), self.layout.code_rows, np.int32)
        active[: len(found)] = found
        arrays: tuple[Any, ...] = (active, session, labels, weight, environments)
        sides = _side(user_rows, users, split[0], split[1]), _side(item_rows, n, split[2], split[3])
        return Batch(*sides, *arrays)

    def _lookup(self, side: Side, kind: Kind) -> Lookup:
        return self.layout.lookup(self.space, side, kind)


def padded(rows: int) -> int:
    """Return the next of 8, 12, 16, 24, 32, 48, ...: at most half of a batch is padding, and shapes are few.

    >>> [padded(rows) for rows in (1, 9, 13, 384, 385)]
    [8, 12, 16, 384, 512]
    """
    power = max(8, 1 << max(rows - 1, 0).bit_length())
    between = power * 3 // 4
    return between if power > 8 and rows <= between else power


def _joined(rows: Sequence[Rows]) -> Rows:
    if len(rows) == 1:
        return rows[0]
    return Rows(
        np.concatenate([part.statistical for part in rows]),
        np.concatenate([part.categorical for part in rows]),
        np.concatenate([part.sequential for part in rows]),
        np.concatenate([part.dense for part in rows]),
    )


def _side(rows: Rows, n: int, categorical: Int32, sequential: Int32) -> SideRows:
    """Return rows of one side with room for n; the places of codes are given one after the other."""
    there = rows.sequential != 0
    places = np.zeros(rows.sequential.shape, np.int32)
    places[there] = sequential
    parts = (
        rows.statistical,
        categorical.reshape(rows.categorical.shape),
        places,
        there.astype(np.float32),
        rows.dense,
    )
    padding: list[Any] = []
    for part in parts:
        whole = np.zeros((n, *part.shape[1:]), part.dtype)
        whole[: len(part)] = part
        padding.append(whole)
    return SideRows(*padding)
