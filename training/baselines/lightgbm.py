"""Boosted trees, fitted again each day on the latest days.

Ke, Meng, Finley, Wang, Chen, Ma, Ye and Liu, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree",
NeurIPS 2017.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import lightgbm
import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import MISSING
from engine.recommender.space import FieldSpace
from training.baselines.matches import Encoded, matches
from training.baselines.popularity import DecayedRates
from training.sessions.sessions import Float32, Sessions

_FIXED = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class LightGBM:
    """One set of trees for each task.

    The trees see statistics as they are (not bucketised), categories of small vocabularies as such, vectors, how often
    the user's history holds what the item is, and, for every category, the rate of labels that it had on the days
    before the row's own. They are fitted from nothing each day, on the latest ``window`` days: trees that are only
    ever added to keep what was wrong in the first ones.

    Parameters
    ----------
    space
        Fitted on the first days; the model extends it by each day that it learns.
    tasks
        Number of labels of a row.
    window
        Days that a fit is made on, whose rows are held.
    trees
        Of a fit.
    most
        Largest vocabulary that trees split as categories.
    seed, threads
        Of LightGBM.
    """

    name = "LightGBM"

    def __init__(
        self,
        space: FieldSpace,
        tasks: int = 1,
        window: int = 7,
        trees: int = 100,
        most: int = 100,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.space = space
        self._trees, self._tasks = trees, tasks
        self._settings = {**_FIXED, "seed": seed, "num_threads": threads}
        self._days: deque[tuple[NDArray[np.float32], Float32]] = deque(maxlen=window)
        self._models: list[lightgbm.Booster] = []
        # Chosen once: a column that became one of categories later would not fit the days that are held.
        self._categories = [
            field.name
            for field in (*space.user, *space.item)
            if field.kind == "categorical" and len(space.vocabularies[field.codes]) <= most
        ]
        self._rates = {
            field.name: DecayedRates(tasks) for field in (*space.user, *space.item) if field.kind == "categorical"
        }

    def score(self, sessions: Sessions) -> Float32:
        """Return the logits, shape (n, n_tasks); 0 before the first day."""
        if not self._models:
            return np.zeros((len(sessions), self._tasks), dtype=np.float32)
        X, _ = self._matrix(sessions)
        return np.stack([model.predict(X, raw_score=True) for model in self._models], axis=1).astype(np.float32)

    def learn(self, day: Iterable[Sessions]) -> None:
        """Extend the space by the day, and fit on the window that ends with it."""
        chunks = list(day)
        self.space = self.space.extended(chunks)
        made = [self._matrix(chunk) for chunk in chunks]  # before their labels are counted in the rates
        if not made:
            return
        self._days.append((np.concatenate([X for X, _ in made]), np.concatenate([chunk.labels for chunk in chunks])))
        for rates in self._rates.values():
            rates.pass_day()
        for chunk in chunks:
            for name, keys in _categories(self.space, chunk):
                self._rates[name].add(keys, chunk.labels)
        X, categorical = np.concatenate([X for X, _ in self._days]), made[0][1]
        y = np.concatenate([labels for _, labels in self._days])
        self._models = []
        for task in range(self._tasks):
            data = lightgbm.Dataset(
                X, np.ascontiguousarray(y[:, task]), categorical_feature=categorical, free_raw_data=True
            )
            self._models.append(lightgbm.train(self._settings, data, self._trees))

    def _matrix(self, sessions: Sessions) -> tuple[NDArray[np.float32], list[int]]:
        """Return the columns of some rows, and which of them are categories."""
        user = self.space.encode("user", sessions.user).take(sessions.session)
        item = self.space.encode("item", sessions.item)
        columns: list[NDArray[np.floating]] = []
        categorical: list[int] = []
        for fields, rows, raw, of_row in (
            (self.space.user, user, sessions.user, sessions.session),
            (self.space.item, item, sessions.item, np.arange(len(item))),
        ):
            columns += [
                np.asarray(raw[field.name], dtype=np.float64)[of_row] for field in fields if field.kind == "statistical"
            ]
            for place, field in enumerate(field for field in fields if field.kind == "categorical"):
                if field.name in self._categories:
                    categorical.append(len(columns))
                    columns.append(rows.categorical[:, place].astype(np.float64))
            columns += [(rows.sequential[:, q] != MISSING).sum(axis=1) for q in range(rows.sequential.shape[1])]
            columns += list(rows.dense.T)
        for name, keys in _categories(self.space, sessions):
            rates, shown = self._rates[name].rates(keys)
            columns += [*rates.T, np.log1p(shown)]
        columns += list(matches(self.space, Encoded(user, item)).T)
        return np.stack(columns, axis=1).astype(np.float32), categorical


def _categories(space: FieldSpace, sessions: Sessions) -> list[tuple[str, NDArray[np.object_]]]:
    """Return the categorical columns of both sides, one value for each row."""
    found = []
    for field in (*space.user, *space.item):
        if field.kind == "categorical":
            own = field.name in sessions.item and field in space.item
            column = sessions.item[field.name] if own else sessions.user[field.name][sessions.session]
            found.append((field.name, column))
    return found
