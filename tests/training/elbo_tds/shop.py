"""A tiny shop: what decides a click is the match of the user's taste and the item's kind, and the item's price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engine.recommender.fields import Field
from training.elbo_tds.config import ElboTdsConfig
from training.sessions import Sessions

USER = (
    Field("age", "statistical", buckets=8),
    Field("taste", "categorical"),
    Field("recent", "sequential", length=5, vocabulary="item_id"),
)
ITEM = (
    Field("price", "statistical", buckets=8),
    Field("item_id", "categorical"),
    Field("kind", "categorical"),
    Field("picture", "dense", length=2),
)
ROWS = 4


class Shop:
    """Days of sessions of four rows; with every day some new items come."""

    user, item = USER, ITEM

    def __init__(self, days: int = 3, sessions: int = 64, tasks: tuple[str, ...] = ("click", "buy")) -> None:
        self.tasks = tasks
        self._days, self._sessions = days, sessions

    def days(self) -> Sequence[int]:
        return range(self._days)

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        rng = np.random.default_rng([7, day])
        n = self._sessions
        taste = rng.integers(0, 3, n)
        item = rng.integers(3 * day, 3 * day + 20, (n, ROWS))
        price = rng.normal(size=(n, ROWS)) + 0.2 * day
        price[rng.random((n, ROWS)) < 0.1] = np.nan
        logit = np.where(item % 3 == taste[:, None], 2.0, -2.0) - np.nan_to_num(price)
        labels = rng.random((n, ROWS, len(self.tasks))) < 1.0 / (1.0 + np.exp(-logit))[..., None]
        recent = rng.integers(0, 20, (n, 5))
        recent[np.arange(5) >= rng.integers(0, 6, n)[:, None]] = -1
        picture, age = rng.normal(size=(n, ROWS, 2)), rng.normal(size=n)
        for start in range(0, n, sessions):
            here = slice(start, start + sessions)
            count = len(taste[here])
            yield Sessions(
                day,
                {"age": age[here], "taste": taste[here], "recent": recent[here]},
                {
                    "price": price[here].ravel(),
                    "item_id": item[here].ravel(),
                    "kind": item[here].ravel() % 3,
                    "picture": picture[here].reshape(-1, 2),
                },
                np.repeat(np.arange(count, dtype=np.int32), ROWS),
                labels[here].reshape(-1, len(self.tasks)).astype(np.float32),
            )

    def whole(self, day: int) -> Sessions:
        return next(self.read(day, self._sessions))


#: The smallest model that still has every part.
TINY = ElboTdsConfig(embedding=4, latent=8, hidden=(8, 4), batch_sessions=16, learning_rate=0.01, copies=3)
