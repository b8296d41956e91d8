"""A source of sessions out of plain rows, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.recommender.fields import Field
from training.sessions import Sessions


@dataclass(frozen=True)
class Row:
    """An item shown: ``session`` counts within its day, and rows of a session stand together."""

    day: int
    session: int
    user: str
    item: str
    label: int


class RowSource:
    """The rows as sessions, with the fields ``user_id`` and ``item_id``; ``reads`` says which days were read."""

    tasks = ("click",)
    user = (Field("user_id", "categorical"),)
    item = (Field("item_id", "categorical"),)

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: (row.day, row.session))
        self.reads: list[int] = []

    def days(self) -> Sequence[int]:
        return sorted({row.day for row in self.rows})

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        self.reads.append(day)
        mine = [row for row in self.rows if row.day == day]
        numbers = sorted({row.session for row in mine})
        for start in range(0, len(numbers), sessions):
            here = numbers[start : start + sessions]
            rows = [row for row in mine if row.session in here]
            users = [next(row.user for row in rows if row.session == number) for number in here]
            yield Sessions(
                day=day,
                user={"user_id": np.array(users, dtype=np.object_)},
                item={"item_id": np.array([row.item for row in rows], dtype=np.object_)},
                session=np.array([here.index(row.session) for row in rows], dtype=np.int32),
                labels=np.array([[row.label] for row in rows], dtype=np.float32),
            )
