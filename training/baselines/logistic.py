"""Logistic regression on hashed indicators and their crosses, by stochastic gradient descent, in one pass.

Weinberger, Dasgupta, Langford, Smola and Attenberg, "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier

from engine.recommender.fields import MISSING, Rows
from engine.recommender.space import FieldSpace
from training.baselines.matches import Encoded, matches
from training.sessions.sessions import Float32, Sessions

UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]


class LogisticRegression:
    """A linear model of each task over indicators of every index of every field.

    Beside the fields' own indicators there is one for each pair of a user's and an item's category, since without
    crosses a linear model would rank alike for everybody; and how often the user's history holds what the item is.
    The width is fixed by hashing, so that new categories need no new model. It goes on from day to day, each row once.

    Parameters
    ----------
    space
        Fitted on the first days; the model extends it by each day that it learns, which it holds meanwhile.
    tasks
        Number of labels of a row.
    bits
        Of the hash: the model has ``2**bits`` weights for each task.
    step
        Step length of the gradient descent; it does not fall, because the world does not stop either.
    ridge
        L2 regularisation.
    seed
        Of the order in which the rows of a chunk are learned from.
    """

    name = "logistic regression"

    def __init__(
        self,
        space: FieldSpace,
        tasks: int = 1,
        bits: int = 18,
        step: float = 0.005,
        ridge: float = 1e-6,
        seed: int = 0,
    ) -> None:
        self.space = space
        self._bits = bits
        self._models = [
            SGDClassifier(loss="log_loss", alpha=ridge, learning_rate="constant", eta0=step, random_state=seed)
            for _ in range(tasks)
        ]
        self._learned = False

    def score(self, sessions: Sessions) -> Float32:
        """Return the logits, shape (n, n_tasks); 0 before the first day."""
        if not self._learned:
            return np.zeros((len(sessions), len(self._models)), dtype=np.float32)
        X = self._matrix(sessions)
        return np.stack([model.decision_function(X) for model in self._models], axis=1).astype(np.float32)

    def learn(self, day: Iterable[Sessions]) -> None:
        """Extend the space by the day, and learn from it."""
        chunks = list(day)
        self.space = self.space.extended(chunks)
        for chunk in chunks:
            X = self._matrix(chunk)
            for task, model in enumerate(self._models):
                model.partial_fit(X, chunk.labels[:, task] > 0.0, classes=[False, True])
                self._learned = True

    def _matrix(self, sessions: Sessions) -> csr_matrix:
        user = self.space.encode("user", sessions.user).take(sessions.session)
        item = self.space.encode("item", sessions.item)
        n = len(item)
        keys: list[UInt64] = []
        values: list[Float64] = []

        def put(name: str, codes: NDArray[np.integer], weights: Float64) -> None:
            """Add columns (n, k) of indicators, each with its weight."""
            keys.append(_hashed(name, codes))
            values.append(np.broadcast_to(weights, codes.shape))

        for side, rows in (("user", user), ("item", item)):
            put(f"{side} statistical", _placed(rows.statistical), np.ones(1))
            put(f"{side} categorical", _placed(rows.categorical), np.ones(1))
            for q in range(rows.sequential.shape[1]):
                here = rows.sequential[:, q] != MISSING
                put(f"{side} sequence {q}", rows.sequential[:, q], here / np.maximum(here.sum(axis=1), 1)[:, None])
            put(f"{side} dense", np.tile(np.arange(rows.dense.shape[1]), (n, 1)), rows.dense.astype(np.float64))
        put("cross", _crossed(user, item), np.ones(1))
        held = np.log1p(matches(self.space, Encoded(user, item)))
        put("match", np.tile(np.arange(held.shape[1]), (n, 1)), held)
        columns = (np.concatenate(keys, axis=1) >> np.uint64(64 - self._bits)).astype(np.int64)
        width = columns.shape[1]
        cells = np.concatenate(values, axis=1)
        return csr_matrix((cells.ravel(), columns.ravel(), np.arange(n + 1) * width), shape=(n, 1 << self._bits))


def _placed(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return codes that differ between the columns too."""
    placed: NDArray[np.int64] = codes.astype(np.int64) * codes.shape[1] + np.arange(codes.shape[1])
    return placed


def _crossed(user: Rows, item: Rows) -> NDArray[np.int64]:
    """Return a code for each pair of a user's and an item's category, shape (n, pairs)."""
    a, b = _placed(user.categorical), _placed(item.categorical)
    pairs: NDArray[np.int64] = ((a[:, :, None] << 32) + b[:, None, :]).reshape(len(a), -1)
    return pairs


def _hashed(name: str, codes: NDArray[np.integer]) -> UInt64:
    """Return 64 well mixed bits of a name and codes (the finaliser of SplitMix64)."""
    start = np.array([zlib.crc32(name.encode())], dtype=np.uint64)  # an array: it wraps around without a warning
    x = codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64 = x ^ (x >> np.uint64(31))
    return mixed
