"""The Diginetica log as sessions of impressions, one day for each of its 17 periods.

Each view but a session's first becomes a group of 12 rows: the item that was viewed next, labelled 1, and 11 sampled
negatives. So the labels are partly synthetic: nobody was shown those 12 together. Of the negatives each is drawn, by a
fair coin, uniformly from all items of the log (also from those first viewed later, or a never-seen item would betray
the positive) or by the number of views in earlier periods; in period 0, which has none, all are uniform. None equals
the positive; two of a group may be equal.

The user side is the session so far: its latest items and how many views it had. The item side is the item's id and
statistics of earlier periods alone, of all sessions, whatever share of them is read. Buckets are to be fitted on
``FIT_DAYS``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Field
from training.sessions import Sessions

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LEEWAY_BENCHMARK_DATA") or ROOT.parent / "shared" / "data") / "temporal"
#: Periods whose rows give the buckets, which are frozen afterwards.
FIT_DAYS = (0, 1, 2)
GROUP = 12
STATISTICS = ("views_1", "views_3", "views_7", "growth", "percentile", "age")

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class DigineticaSessions:
    """The source; equal seeds and shares give equal sessions.

    The log is held, and while a period is read its groups (ids alone); the columns are made for the sessions asked for.

    Parameters
    ----------
    seed
        Of the negatives, and of the sessions that are kept.
    share
        Of the log's sessions to be read, drawn at random.
    history
        Most items of the session so far.
    path
        The archive.
    """

    tasks = ("next_item",)

    def __init__(self, seed: int, share: float = 1.0, history: int = 20, path: Path = DATA / "diginetica.npz") -> None:
        self._seed, self._history = seed, history
        self.user = (
            Field("position", "statistical", buckets=10),
            Field("recent", "sequential", length=history, vocabulary="item_id"),
        )
        self.item = (Field("item_id", "categorical"), *(Field(name, "statistical") for name in STATISTICS))
        with np.load(path, allow_pickle=False) as log:
            session, item = log["session"].astype(np.int64), log["item"].astype(np.int64)
            period = log["period"].astype(np.int64)
        self._items, self._periods = int(item.max()), int(period.max()) + 1
        cells = np.bincount(period * (self._items + 1) + item, minlength=self._periods * (self._items + 1))
        self._views = cells.reshape(self._periods, -1).astype(np.float64)
        kept = np.random.default_rng([seed, 0]).random(int(session.max()) + 1) < share
        mine = kept[session]
        session, item, period = session[mine], item[mine], period[mine]
        # A session that lasts into the next period begins anew there.
        order = np.lexsort((np.arange(len(item)), session, period))
        self._item, self._period = item[order], period[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (session[order][1:] != session[order][:-1]) | (self._period[1:] != self._period[:-1])
        starts = np.flatnonzero(first)
        self._position = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        self._time = order

    def days(self) -> Sequence[int]:
        """Return the periods."""
        return range(self._periods)

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a period's groups in the order of their views."""
        rng = np.random.default_rng([self._seed, 1, day])
        views = np.flatnonzero((self._period == day) & (self._position > 0))
        views = views[np.argsort(self._time[views])]
        items = self._negatives(rng, self._item[views], day)
        place = rng.integers(0, GROUP, len(views))  # of the positive
        items[np.arange(len(views)), 0] = items[np.arange(len(views)), place]
        items[np.arange(len(views)), place] = self._item[views]
        table = self._statistics(day)
        for start in range(0, len(views), sessions):
            here = slice(start, start + sessions)
            shown = items[here].ravel()
            labels = (place[here, None] == np.arange(GROUP)).astype(np.float32).reshape(-1, 1)
            yield Sessions(
                day=day,
                user={"position": self._position[views[here]], "recent": self._recent(views[here])},
                item={"item_id": shown, **dict(zip(STATISTICS, table[shown].T, strict=True))},
                session=np.repeat(np.arange(len(views[here]), dtype=np.int32), GROUP),
                labels=labels,
            )

    def _negatives(self, rng: np.random.Generator, positive: Int64, day: int) -> Int64:
        """Return ids of shape (n, 12) that differ from the positive; the first column is free for an exchange."""
        past = self._views[:day].sum(axis=0)
        cumulative = np.cumsum(past)

        def draw(count: int) -> Int64:
            found = rng.integers(1, self._items + 1, count)
            popular = rng.random(count) < 0.5
            if day > 0:
                views = rng.random(count) * cumulative[-1]
                found[popular] = np.searchsorted(cumulative, views, side="right")[popular]
            return found

        items = draw(len(positive) * GROUP).reshape(-1, GROUP)
        while (hits := items == positive[:, None]).any():
            items[hits] = draw(int(hits.sum()))
        return items

    def _recent(self, views: Int64) -> Int64:
        """Return the items before each view in its session, the latest last, -1 as padding."""
        back = np.arange(self._history, 0, -1)
        recent: Int64 = self._item[np.maximum(views[:, None] - back, 0)]
        recent[back > self._position[views][:, None]] = -1
        return recent

    def _statistics(self, day: int) -> Float64:
        """Return the statistics of every item id from earlier periods, shape (items + 1, 6); NaN: no past."""
        past = self._views[:day]
        last = past[-1] if day else np.zeros(self._items + 1)
        means = [past[-w:].sum(axis=0) / min(w, day) if day else last for w in (3, 7)]
        seen = past.cumsum(axis=0) > 0.0
        known = seen[-1] if day else np.zeros(self._items + 1, dtype=np.bool_)
        total = past.sum(axis=0)
        ranks = np.searchsorted(np.sort(total[known]), total, side="right") / max(int(known.sum()), 1)
        return np.stack(
            [
                last,
                *means,
                np.divide(last, means[0], out=np.full(len(last), np.nan), where=means[0] > 0.0),
                np.where(known, ranks, np.nan),
                np.where(known, seen.sum(axis=0, dtype=np.float64), np.nan),
            ],
            axis=1,
        )
