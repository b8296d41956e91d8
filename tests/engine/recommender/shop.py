"""A small recommender with a model that nobody trained: what the tests of lists are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Recommender
from engine.recommender.catalogue import Catalogue
from engine.recommender.declared import declared_space
from engine.recommender.fields import FIRST
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import Lookup, Tower, TwoTower

NAME = "shop"
SETTINGS: dict[str, Any] = {
    "user": {
        "country": {"type": "category"},
        "age": {"type": "number", "buckets": 4},
        "recent": {"type": "history", "of": "item_id", "length": 3},
    },
    "item": {
        "item_id": {"type": "category"},
        "price": {"type": "number", "buckets": 4},
        "look": {"type": "vector", "size": 2},
    },
    "tasks": {"click": 1.0, "purchase": 5.0},
    "slots": 4,
    "candidates": 8,
}
EMBEDDING = 3


def shop(**changes: Any) -> Recommender:
    return Recommender.model_validate({**SETTINGS, **changes})


def fitted_space(recommender: Recommender, items: int = 12) -> FieldSpace:
    """Return a space that knows two countries and the items i0, i1, ..."""
    declared = declared_space(recommender)
    edges = {"age": np.array([20.0, 40.0]), "price": np.array([1.0, 5.0])}
    known = {"country": ["NL", "DE"], "item_id": [f"i{number}" for number in range(items)]}
    return FieldSpace(declared.user, declared.item, edges, known)


def random_model(space: FieldSpace, tasks: tuple[str, ...], d: int = 4, seed: int = 0) -> TwoTower:
    """Return a model of random weights over a space."""
    rng = np.random.default_rng(seed)
    starts: dict[str, int] = {}
    bucket_rows = code_rows = 0
    for field in (*space.user, *space.item):
        if field.kind == "statistical":
            starts[field.name] = bucket_rows
            bucket_rows += space.rows_of(field)
        elif field.coded and field.codes not in starts:
            starts[field.codes] = code_rows
            code_rows += FIRST + len(space.vocabularies[field.codes])

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    def tower(fields: tuple[Any, ...]) -> Tower:
        def lookup(kind: str) -> Lookup:
            mine = [field for field in fields if field.kind == kind]
            start = [starts[field.codes if field.coded else field.name] for field in mine]
            return Lookup(np.array(start, np.int64), np.array([space.rows_of(f) for f in mine], np.int64))

        width = sum(field.length if field.kind == "dense" else EMBEDDING for field in fields)
        layers = ((normal(width, d * len(tasks)), normal(d * len(tasks))),)
        return Tower(lookup("statistical"), lookup("categorical"), lookup("sequential"), None, layers)

    return TwoTower(
        tasks, normal(bucket_rows, EMBEDDING), normal(code_rows, EMBEDDING), tower(space.user), tower(space.item)
    )


def catalogue_of(recommender: Recommender, items: int = 12, seed: int = 1) -> Catalogue:
    """Return a catalogue of the items i0, i1, ...; every third has no price."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"i{number}" for number in range(items))
    price = rng.uniform(0.0, 10.0, items)
    price[::3] = np.nan
    look = rng.normal(size=(items, 2)).astype(np.float32)
    return Catalogue(recommender.item, ids, {"item_id": list(ids), "price": price, "look": look})


def make_policy(
    *, trained: bool = True, items: int = 12, catalogue: bool = True, seed: int = 0, update: int = 0, **changes: Any
) -> RecommenderPolicy:
    """Return a policy of the shop; ``changes`` are settings of the recommender."""
    recommender = shop(**changes)
    space = fitted_space(recommender, items)
    return RecommenderPolicy(
        NAME,
        recommender,
        space if trained else declared_space(recommender),
        random_model(space, tuple(recommender.tasks), seed=seed) if trained else None,
        catalogue_of(recommender, items) if catalogue else None,
        generation=int(trained),
        update=update,
        learned=100 * trained,
        created_ms=1_000,
    )
