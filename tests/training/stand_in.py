"""A trainer for tests that need a model and not its training: shares of each country and item, in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.recommender.fields import FIRST
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import Lookup, Tower, TwoTower
from training.config import RecommenderRetrainingConfig
from training.day_trainer import DayScore, State, Trained
from training.sessions import Sessions, SessionSource

#: A LeakyReLU makes -0.01 x of what is below 0.
_LEAK = 100.0
_SHIFT = 10.0


class StandIn:
    """Counts what came of each pair of the fields ``country`` and ``item_id``, day after day.

    The state is the counts and the names that they belong to. What it was asked for is kept in ``asked``.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], float, bool]] = []

    def __call__(
        self,
        source: SessionSource,
        config: RecommenderRetrainingConfig,
        *,
        p: float,
        state: State | None,
        on_day: Callable[[DayScore], None],
    ) -> Trained:
        self.asked.append((tuple(source.days()), p, state is not None))
        space = FieldSpace(source.user, source.item)
        tasks = len(source.tasks)
        shown, done = np.zeros((0, 0)), np.zeros((0, 0, tasks))
        if state is not None:
            space = FieldSpace.from_arrays(state)
            shown, done = state["shown"], state["done"]
        days = []
        for number, day in enumerate(source.days()):
            chunks: list[Sessions] = list(source.read(day, 100))
            grown = (
                space.fitted(chunks, min_count=1)
                if not number and state is None
                else space.extended(chunks, min_count=1)
            )
            space = grown
            size = [FIRST + len(space.vocabularies[name]) for name in ("country", "item_id")]
            shown = np.pad(shown, [(0, n - m) for n, m in zip(size, shown.shape, strict=True)])
            done = np.pad(done, [*[(0, n - m) for n, m in zip(size, done.shape[:2], strict=True)], (0, 0)])
            rows = 0
            for chunk in chunks:
                country = space.encode("user", chunk.user).categorical[chunk.session, 0]
                item = space.encode("item", chunk.item).categorical[:, 0]
                np.add.at(shown, (country, item), 1.0)
                np.add.at(done, (country, item), chunk.labels.astype(np.float64))
                rows += len(chunk)
            days.append(DayScore(day, rows, dict.fromkeys(source.tasks, 0.5)))
            on_day(days[-1])
        rate = (done + 0.5) / (shown[..., None] + 10.0)
        kept = {**space.to_arrays(), "shown": shown, "done": done}
        return Trained(space, _model(source.tasks, np.log(rate / (1.0 - rate))), kept, tuple(days))


def _model(tasks: tuple[str, ...], logits: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]) -> TwoTower:
    """Return the model with these logits of country, item and task: for each task one-hot countries times items."""
    countries, items, n = logits.shape
    width = countries + 1  # the last one carries the shift that makes all numbers positive
    codes = np.zeros((countries + items, width * n), np.float32)
    for task in range(n):
        block = slice(task * width, (task + 1) * width)
        codes[:countries, block] = np.eye(countries, width)
        codes[:countries, task * width + countries] = 1.0
        codes[countries:, block][:, :countries] = logits[:, :, task].T + _SHIFT
        codes[countries:, task * width + countries] = -_SHIFT * _LEAK
    layer = (np.eye(width * n, dtype=np.float32), np.zeros(width * n, np.float32))
    nothing = Lookup(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def tower(start: int, size: int) -> Tower:
        lookup = Lookup(np.array([start], np.int64), np.array([size], np.int64))
        return Tower(nothing, lookup, nothing, None, (layer,))

    buckets = np.zeros((0, width * n), np.float32)
    return TwoTower(tasks, buckets, codes, tower(0, countries), tower(countries, items))
