"""A recommender's policy: encoding, model, catalogue and exploration, immutable, with a version. What serves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Recommender
from engine.prediction import Prediction
from engine.recommender.catalogue import Catalogue
from engine.recommender.columns import Columns
from engine.recommender.declared import declared_space
from engine.recommender.drawing import Drawing
from engine.recommender.fields import Rows
from engine.recommender.index import ExactIndex, HNSWIndex, Index, wants_graph
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import TwoTower
from engine.records import policy_version

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Items whose vectors are computed at once: what stands between the layers stays small.
_CHUNK = 16_384


@dataclass(frozen=True, eq=False)
class RecommenderPolicy:
    """What turns a user and candidates into a ranked list.

    Parameters
    ----------
    name
        The recommender's name.
    recommender
        Its configuration as it was when the policy was made.
    space
        The encoding that the model was trained with.
    model
        Scores items; ``None`` before any training: every list is as likely as any other then.
    catalogue
        The items that need not be named in a request; ``None``: all are.
    generation
        0 before any training; grows with each promotion.
    update
        Counts the changes within a generation: another catalogue, another configuration.
    learned
        Number of lists that the model has learned from; sets the exploration's schedule.
    created_ms
        When it was made; not part of its identity.
    uniform_share
        Share of uniform exploration that is mixed into each slot; more than 0 after an alarm.
    vectors : ndarray of float32, shape (n_items, n_tasks, d), optional
        The catalogue's vectors, computed unless they are given. They are kept with the policy, since another
        processor may round otherwise, and a logged list is to be recomputed bit for bit.
    graph : ndarray of uint8, optional
        The graph of a large catalogue; likewise.
    """

    name: str
    recommender: Recommender
    space: FieldSpace
    model: TwoTower | None
    catalogue: Catalogue | None
    generation: int
    update: int
    learned: int
    created_ms: int
    uniform_share: float = 0.0
    vectors: Float32 | None = None
    graph: NDArray[np.uint8] | None = None
    version: str = field(init=False)
    drawing: Drawing = field(init=False, repr=False)
    _weights: Float64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tasks = tuple(self.recommender.tasks)
        if self.model is not None and self.model.tasks != tasks:
            raise ValueError(f"the model predicts {', '.join(self.model.tasks)}, and the tasks are {', '.join(tasks)}")
        object.__setattr__(self, "_weights", np.array(list(self.recommender.tasks.values())))
        if self.model is not None and self.catalogue is not None and self.vectors is None:
            rows = self.space.encode("item", self.catalogue.columns)
            object.__setattr__(self, "vectors", item_vectors(self.model, rows))
        if self.vectors is not None and self.graph is None and wants_graph(self.recommender.index, len(self.vectors)):
            object.__setattr__(self, "graph", HNSWIndex.build(self._keys, self.recommender.index))
        object.__setattr__(self, "drawing", Drawing(self.recommender.slate, self.uniform_share))
        object.__setattr__(self, "version", policy_version(self.generation, self.update, self.digest()))

    def manifest(self) -> dict[str, object]:
        """Return what the policy is besides its arrays and its age, as plain JSON values."""
        return {
            "recommender": self.name,
            "config": self.recommender.model_dump(mode="json"),
            "model": None if self.model is None else self.model.kind,
            "catalogue": None if self.catalogue is None else self.catalogue.digest,
            "generation": self.generation,
            "update": self.update,
            "learned": self.learned,
            "uniform_share": self.uniform_share,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that is numbers or many texts as plain arrays."""
        parts: dict[str, NDArray[Any]] = {f"space.{key}": array for key, array in self.space.to_arrays().items()}
        if self.model is not None:
            parts |= {f"model.{key}": array for key, array in self.model.arrays().items()}
        if self.catalogue is not None:
            parts |= {f"catalogue.{key}": array for key, array in self.catalogue.to_arrays().items()}
        if self.vectors is not None:
            parts["vectors"] = self.vectors
        if self.graph is not None:
            parts["graph"] = self.graph
        return parts

    def digest(self) -> str:
        """SHA-256 over manifest and arrays: the same content has the same digest, wherever it was made."""
        hasher = hashlib.sha256(json.dumps(self.manifest()).encode())
        for key, array in sorted(self.arrays().items()):
            hasher.update(f"{key}:{array.dtype.str}:{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()

    def user_vector(self, columns: Columns) -> Float32:
        """Return the vectors of one user for all tasks, shape (n_tasks, d)."""
        assert self.model is not None
        vectors: Float32 = self.model.user_vectors(self.space.encode("user", columns))[0]
        return vectors

    def item_vectors(self, columns: Columns) -> Float32:
        """Return the vectors of items that a request describes, shape (n, n_tasks, d)."""
        assert self.model is not None
        return self.model.item_vectors(self.space.encode("item", columns))

    def retrieve(self, user: Float32, count: int) -> Int64:
        """Return the rows of the catalogue's best items for a user, best first.

        By the inner product of the items' vectors with the user's, each task times its weight: the order is that of the
        weighted logits, and close to that of the expected rewards.
        """
        assert self._index is not None
        query = (user * self._weights[:, None]).astype(np.float32).reshape(-1)
        return self._index.search(query, count)

    def expected(self, user: Float32, items: Float32) -> Float64:
        """Return the expected reward of each item: the sum over tasks of weight times probability.

        Parameters
        ----------
        user : ndarray of float32, shape (n_tasks, d)
        items : ndarray of float32, shape (n, n_tasks, d)
        """
        assert self.model is not None
        logits = self.model.logits(user, items).astype(np.float64)
        with np.errstate(over="ignore"):  # of a logit far below 0; its probability is 0 then, as it should be
            expected: Float64 = (1.0 / (1.0 + np.exp(-logits))) @ self._weights
        return expected

    def prediction(self, expected: Float64) -> Prediction:
        """Return expected rewards in units of the range of one item's reward, as explorations take them."""
        low, high = self.recommender.item_range
        return Prediction((expected - low) / (high - low))

    @property
    def _keys(self) -> Float32:
        assert self.vectors is not None
        return self.vectors.reshape(len(self.vectors), -1)

    @cached_property
    def _index(self) -> Index | None:
        if self.vectors is None:
            return None
        if self.graph is not None:
            return HNSWIndex(self.graph, self.recommender.index.ef_search)
        return ExactIndex(self._keys)

    def prepare(self) -> None:
        """Do what the first request would have to wait for."""
        if self._index is not None:
            self._index.search(self._keys[0], 1)


def item_vectors(model: TwoTower, rows: Rows) -> Float32:
    """Return the vectors of many items, some thousands at a time."""
    parts = [
        model.item_vectors(rows.take(np.arange(start, min(start + _CHUNK, len(rows)))))
        for start in range(0, len(rows), _CHUNK)
    ]
    return np.concatenate(parts)


def initial_recommender(name: str, recommender: Recommender, created_ms: int, generation: int = 0) -> RecommenderPolicy:
    """Return a policy that has learned nothing yet, so that it explores uniformly."""
    space = declared_space(recommender)
    return RecommenderPolicy(
        name, recommender, space, None, None, generation, update=0, learned=0, created_ms=created_ms
    )
