"""Popularity: an item's own rate of labels in the past, whoever is asking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.recommender.values import distinct
from training.sessions.sessions import Float32, Sessions

Float64 = NDArray[np.float64]

#: What is left of a count after a day; below so many rows a key is forgotten.
_DECAY = 0.9
_LEAST = 0.05


class DecayedRates:
    """Rates of labels by key in the past, of which each day counts less than the next.

    A key's rate is ``(labelled + prior * mean) / (shown + prior)``, with the mean over all keys: one that was shown
    seldom is near the mean. Memory is bounded by the keys of the latest days.

    Parameters
    ----------
    tasks
        Number of labels of a row.
    decay
        By what a day's counts are multiplied when a day has passed.
    prior
        Weight of the mean, in rows.
    """

    def __init__(self, tasks: int, decay: float = _DECAY, prior: float = 20.0) -> None:
        if not 0.0 < decay <= 1.0 or not prior > 0.0:
            raise ValueError(f"decay must be above 0 and at most 1, and prior above 0; got {decay} and {prior}")
        self._decay, self._prior = decay, prior
        self._counts: dict[str | None, Float64] = {}  # rows shown, and those labelled by task
        self._total = np.zeros(1 + tasks)

    def rates(self, keys: Any) -> tuple[Float64, Float64]:
        """Return the rate of each key, shape (n, tasks), and how many rows it rests on, shape (n,)."""
        texts, inverse = distinct(keys, "keys")
        nothing = np.zeros(len(self._total))
        counts = np.array([self._counts.get(text, nothing) for text in texts]).reshape(len(texts), -1)
        mean = self._total[1:] / max(self._total[0], 1.0)
        smoothed = (counts[:, 1:] + self._prior * mean) / (counts[:, :1] + self._prior)
        return smoothed[inverse], counts[inverse, 0]

    def pass_day(self) -> None:
        """Let a day pass."""
        self._total *= self._decay
        self._counts = {
            key: counts * self._decay for key, counts in self._counts.items() if counts[0] * self._decay > _LEAST
        }

    def add(self, keys: Any, labels: NDArray[Any]) -> None:
        """Count rows with their labels, shape (n, tasks)."""
        texts, inverse = distinct(keys, "keys")
        rows = np.concatenate([np.ones((len(labels), 1)), labels], axis=1)
        sums = np.zeros((len(texts), rows.shape[1]))
        np.add.at(sums, inverse, rows)
        self._total += sums.sum(axis=0)
        for text, counts in zip(texts, sums, strict=True):
            self._counts[text] = self._counts.get(text, 0.0) + counts


class Popularity:
    """The smoothed rate of an item's labels in the past days.

    Parameters
    ----------
    key
        The item column that says which item it is, such as ``item_id``.
    tasks
        Number of labels of a row.
    decay, prior
        See ``DecayedRates``.
    """

    name = "popularity"

    def __init__(self, key: str, tasks: int = 1, decay: float = _DECAY, prior: float = 20.0) -> None:
        self._key = key
        self._rates = DecayedRates(tasks, decay, prior)

    def score(self, sessions: Sessions) -> Float32:
        """Return each row's rates, shape (n, n_tasks)."""
        return self._rates.rates(sessions.item[self._key])[0].astype(np.float32)

    def learn(self, day: Iterable[Sessions]) -> None:
        """Count a day."""
        self._rates.pass_day()
        for chunk in day:
            self._rates.add(chunk.item[self._key], chunk.labels)
