"""How often what an item is comes in the user's histories: the one cross of both sides that trees cannot make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import FIRST, Field, Int32, Rows
from engine.recommender.space import FieldSpace

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The encoded rows of both sides, user rows repeated for each row of their session."""

    user: Rows
    item: Rows

    def __len__(self) -> int:
        return len(self.item)


def matches(space: FieldSpace, rows: Encoded) -> Float64:
    """Return, for each pair of a user's history and an item's category with one vocabulary, how often it holds it.

    Shape (n, pairs); what is unseen or missing matches nothing.
    """
    histories = [field for field in space.user if field.kind == "sequential"]
    categories = [field for field in space.item if field.kind == "categorical"]
    found = [
        _count(rows.user.sequential[:, q], rows.item.categorical[:, c])
        for q, history in enumerate(histories)
        for c, category in enumerate(categories)
        if _comparable(history, category)
    ]
    return np.stack(found, axis=1) if found else np.zeros((len(rows), 0))


def _comparable(history: Field, category: Field) -> bool:
    return history.codes == category.codes


def _count(history: Int32, code: Int32) -> Float64:
    same = (history == code[:, None]) & (code[:, None] >= FIRST)
    counts: Float64 = same.sum(axis=1).astype(np.float64)
    return counts
