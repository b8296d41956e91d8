"""Counts and rates of users and items over windows of past days, made in one pass and without looking ahead.

All rows of a day see the same past: whole days before it. So a statistic never holds a label that was not known when
the day began, and later rows, of the same day too, change nothing in earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import Field, Side
from engine.recommender.values import distinct
from training.sessions.sessions import Sessions, SessionSource

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class RollingCounts:
    """Sums by key over windows of past days.

    Memory is bounded by the keys seen within the longest window times its days, and not by rows. Older keys are
    forgotten.

    Parameters
    ----------
    windows
        Lengths in days: a window of w sums the days ``day - w`` to ``day - 1``.
    values
        How many values are summed.

    Examples
    --------
    >>> counts = RollingCounts([1, 3], values=1)
    >>> for day in (0, 1, 2):
    ...     counts.add(day, np.array(["a", "b"]), np.array([[1.0], [10.0 * day]]))
    >>> counts.before(3, np.array(["b", "z"]))[:, :, 0].tolist()
    [[20.0, 30.0], [0.0, 0.0]]
    """

    def __init__(self, windows: Sequence[int], values: int) -> None:
        if not windows or min(windows) < 1 or len(set(windows)) < len(windows):
            raise ValueError(f"windows: must be different whole numbers of days from 1 on, got {list(windows)}")
        self.windows = tuple(windows)
        self._longest = max(windows)
        self._places: dict[str, int] = {}
        # One slot more than the longest window: the day being added is none of its past.
        self._days = np.zeros((0, self._longest + 1, values))
        self._day: int | None = None
        self._sums: Float64 | None = None

    def __len__(self) -> int:
        """Return the number of keys that are held."""
        return len(self._places)

    def before(self, day: int, keys: Any) -> Float64:
        """Return the sums over the days before this one, shape (n, windows, values).

        They are 0 for a key that was never seen, and NaN where the key is missing.

        Parameters
        ----------
        day
            None before the last one that was added.
        keys : array_like, shape (n,)
            Texts or whole numbers, which are one key with their decimal texts; missing: ``None``, NaN and ``""``.

        Raises
        ------
        ValueError
            The day is earlier than the last one added.
        """
        self._advance(day)
        if self._sums is None:
            slots = np.arange(day - self._longest, day) % (self._longest + 1)
            past = self._days[:, slots]  # oldest first
            self._sums = np.stack([past[:, -w:].sum(axis=1) for w in self.windows], axis=1)
        texts, inverse = distinct(keys, "keys")
        places = np.array([-1 if text is None else self._places.get(text, -1) for text in texts], dtype=np.int64)[
            inverse
        ]
        found = np.zeros((len(places), *self._sums.shape[1:]))
        # A key that is new today stands behind those whose sums were made.
        known = (places >= 0) & (places < len(self._sums))
        found[known] = self._sums[places[known]]
        found[np.array([text is None for text in texts], dtype=np.bool_)[inverse]] = np.nan
        return found

    def add(self, day: int, keys: Any, values: Float64) -> None:
        """Add rows of a day, values of shape (n, values); those without a key are passed over.

        Raises ``ValueError`` if the day is earlier than the last one added.
        """
        self._advance(day)
        texts, inverse = distinct(keys, "keys")
        here = np.array([text is not None for text in texts], dtype=np.bool_)[inverse]
        places = np.array(
            [-1 if text is None else self._places.setdefault(text, len(self._places)) for text in texts], dtype=np.int64
        )
        if len(self._places) > len(self._days):
            more = max(len(self._places) - len(self._days), len(self._days) // 2)
            self._days = np.concatenate([self._days, np.zeros((more, *self._days.shape[1:]))])
        np.add.at(self._days[:, day % (self._longest + 1)], places[inverse][here], values[here])

    def of(self, day: int) -> tuple[NDArray[np.object_], Float64]:
        """Return the keys that are held, and what was added for each on one of the days that are held."""
        keys = np.array(list(self._places), dtype=np.object_)
        return keys, self._days[: len(keys), day % (self._longest + 1)]

    def _advance(self, day: int) -> None:
        if self._day is None or day == self._day:
            self._day = day
            return
        if day < self._day:
            raise ValueError(f"day: {day} comes after {self._day} was added; days never fall")
        passed = np.arange(max(self._day + 1, day - self._longest), day + 1)
        self._days[:, passed % (self._longest + 1)] = 0.0
        self._day, self._sums = day, None
        held = np.asarray(self._days[: len(self._places)].any(axis=(1, 2)))
        if held.sum() < len(held) / 2:
            texts = np.array(list(self._places), dtype=np.object_)[held]
            self._places = {text: place for place, text in enumerate(texts.tolist())}
            self._days = self._days[: len(held)][held]


@dataclass(frozen=True, slots=True)
class Statistic:
    """What is counted.

    Parameters
    ----------
    side
        Where its key stands, and where the statistics become fields.
    key
        The column that says whose statistics they are, such as ``item_id``.
    windows
        In days.
    """

    side: Side
    key: str
    windows: tuple[int, ...] = (1, 3, 7)


class RollingSource:
    """A source with rolling statistics as further statistical fields.

    For each key K, window w and task T they are ``K_shown_w`` (rows in the past w days), ``K_T_w`` (those labelled) and
    ``K_T_rate_w`` (their ratio, missing where nothing was shown). On the user side a row is one session, which sees
    what was shown to its user.

    Days read in order are read once each: a day is counted while it is passed on. Reading an earlier day again, or
    starting in the middle, first reads the days of the longest window before it.

    Parameters
    ----------
    source
        Where sessions come from.
    statistics
        What to count.
    buckets
        Of the new fields.

    Raises
    ------
    ValueError
        A key is no categorical field of its side.
    """

    def __init__(self, source: SessionSource, statistics: Sequence[Statistic], buckets: int = 50) -> None:
        self._source = source
        self._statistics = tuple(statistics)
        self.tasks = source.tasks
        made: dict[Side, list[Field]] = {"user": list(source.user), "item": list(source.item)}
        for statistic in self._statistics:
            keys = [field.name for field in made[statistic.side] if field.kind == "categorical"]
            if statistic.key not in keys:
                raise ValueError(
                    f"statistics: {statistic.key!r} is no categorical {statistic.side} field; "
                    f"there are: {', '.join(keys) or 'none'}"
                )
            made[statistic.side] += [Field(name, "statistical", buckets=buckets) for name in self._names(statistic)]
        self.user, self.item = tuple(made["user"]), tuple(made["item"])
        self._longest = max((max(statistic.windows) for statistic in self._statistics), default=0)
        self._counts: list[RollingCounts] = []
        self._counted: int | None = None
        self._start()

    def days(self) -> Sequence[int]:
        """Return the days of the source."""
        return self._source.days()

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        """Yield a day's sessions with the statistics as they were when the day began."""
        self._catch_up(day, sessions)
        counted = self._counted == day
        # What is counted while passing on joins the past at the end alone: a reading may be broken off.
        seen: list[RollingCounts] = [RollingCounts([1], 1 + len(self.tasks)) for _ in self._statistics]
        for chunk in self._source.read(day, sessions):
            if not counted:
                self._count(seen, chunk)
            yield self._with_statistics(chunk)
        if not counted and self._counted != day:
            for counts, today in zip(self._counts, seen, strict=True):
                counts.add(day, *today.of(day))
            self._counted = day

    def _start(self) -> None:
        self._counts = [RollingCounts(statistic.windows, 1 + len(self.tasks)) for statistic in self._statistics]
        self._counted = None

    def _catch_up(self, day: int, sessions: int) -> None:
        """Count the days of the longest window before this one that are not yet counted."""
        if self._counted is not None and self._counted > day:
            self._start()
        for earlier in self.days():
            if day - self._longest <= earlier < day and (self._counted is None or earlier > self._counted):
                for chunk in self._source.read(earlier, sessions):
                    self._count(self._counts, chunk)
                self._counted = earlier

    def _count(self, tables: Sequence[RollingCounts], chunk: Sessions) -> None:
        shown = np.concatenate([np.ones((len(chunk), 1)), chunk.labels], axis=1)
        for statistic, counts in zip(self._statistics, tables, strict=True):
            if statistic.side == "item":
                counts.add(chunk.day, chunk.item[statistic.key], shown)
            else:
                keys = chunk.user[statistic.key]
                of_session = np.zeros((len(keys), shown.shape[1]))
                np.add.at(of_session, chunk.session, shown)
                counts.add(chunk.day, keys, of_session)

    def _with_statistics(self, chunk: Sessions) -> Sessions:
        columns = {"user": dict(chunk.user), "item": dict(chunk.item)}
        for statistic, counts in zip(self._statistics, self._counts, strict=True):
            side = columns[statistic.side]
            sums = counts.before(chunk.day, side[statistic.key])
            made = []
            for window in range(len(statistic.windows)):
                shown = sums[:, window, 0]
                made.append(shown)
                for task in range(len(self.tasks)):
                    labelled = sums[:, window, 1 + task]
                    rate = np.divide(labelled, shown, out=np.full(len(shown), np.nan), where=shown > 0.0)
                    made += [labelled, rate]
            side.update(zip(self._names(statistic), made, strict=True))
        return replace(chunk, user=columns["user"], item=columns["item"])

    def _names(self, statistic: Statistic) -> list[str]:
        names = []
        for window in statistic.windows:
            names.append(f"{statistic.key}_shown_{window}")
            for task in self.tasks:
                names += [f"{statistic.key}_{task}_{window}", f"{statistic.key}_{task}_rate_{window}"]
        return names
