"""Sessions: what was shown together to one user, with the labels that came of it; and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Field

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Raw columns of some sessions of one day: n rows (items shown) in m sessions.

    Parameters
    ----------
    day
        Number of the day.
    user : mapping of ndarray, shape (m, ...)
        The columns of the user side, one row a session.
    item : mapping of ndarray, shape (n, ...)
        The columns of the item side.
    session : ndarray of int32, shape (n,)
        Index of each row's session, from 0 to m - 1 and never falling.
    labels : ndarray of float32, shape (n, n_tasks)
        What came of it, 0 or 1 for each task.

    Raises
    ------
    ValueError
        The numbers of rows do not agree.
    """

    day: int
    user: Columns
    item: Columns
    session: Int32
    labels: Float32

    def __post_init__(self) -> None:
        n = len(self.session)
        for name, column in self.item.items():
            if len(column) != n:
                raise ValueError(f"item column {name!r}: {len(column)} rows, but {n} rows have a session")
        if self.labels.ndim != 2 or len(self.labels) != n:
            raise ValueError(f"labels: shape {self.labels.shape}, but must be ({n}, number of tasks)")
        if n and (self.session[0] < 0 or (np.diff(self.session) < 0).any()):
            raise ValueError("session: the rows of a session must stand together, in the order of the sessions")
        m = int(self.session[-1]) + 1 if n else 0
        for name, column in self.user.items():
            if len(column) < m:
                raise ValueError(f"user column {name!r}: {len(column)} rows, but there are {m} sessions")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.session)


class SessionSource(Protocol):
    """Sessions by day, read in order and in bounded memory."""

    @property
    def user(self) -> tuple[Field, ...]:
        """The fields of the user side."""

    @property
    def item(self) -> tuple[Field, ...]:
        """The fields of the item side."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labels."""

    def days(self) -> Sequence[int]:
        """Return the days, rising; some numbers may be left out."""

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a day's sessions in their order, at most ``sessions`` at once, which bounds the memory.

        Two readings of a day give the same.
        """
