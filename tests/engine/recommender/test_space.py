"""Encoding: the past keeps its indices, equal values are equal however they come, and files give the same space."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from engine.recommender.fields import Field, Rows
from engine.recommender.space import FieldSpace

USER = (
    Field("country", "categorical"),
    Field("recent", "sequential", length=3, vocabulary="item_id"),
    Field("embedding", "dense", length=2),
)
ITEM = (
    Field("item_id", "categorical"),
    Field("price", "statistical", buckets=4),
    Field("tags", "sequential", length=2),
    Field("score", "dense"),
)


@dataclass(frozen=True)
class Day:
    user: dict[str, Any]
    item: dict[str, Any]


def users(**columns: Any) -> dict[str, Any]:
    n = len(next(iter(columns.values())))
    return {
        "country": [None] * n,
        "recent": [[] for _ in range(n)],
        "embedding": np.zeros((n, 2)),
        **columns,
    }


def items(**columns: Any) -> dict[str, Any]:
    n = len(next(iter(columns.values())))
    return {
        "item_id": [None] * n,
        "price": np.zeros(n),
        "tags": [[] for _ in range(n)],
        "score": np.zeros(n),
        **columns,
    }


def day(user: dict[str, Any] | None = None, item: dict[str, Any] | None = None) -> Day:
    return Day(user or users(country=[]), item or items(item_id=[]))


def equal(one: Rows, other: Rows) -> bool:
    return all(
        np.array_equal(getattr(one, kind), getattr(other, kind))
        for kind in ("statistical", "categorical", "sequential", "dense")
    )


def test_each_bucket_holds_the_same_number_of_the_values_it_was_fitted_on_and_missing_has_its_own() -> None:
    prices = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    space = FieldSpace(USER, ITEM).fitted([day(item=items(price=prices[:30])), day(item=items(price=prices[30:]))])
    assert space.edges["price"].tolist() == [25.0, 50.0, 75.0]
    buckets = space.encode("item", items(price=[-np.inf, 25.0, 25.5, 75.0, 1e9, np.nan, None])).statistical[:, 0]
    assert buckets.tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert space.rows_of(ITEM[1]) == 5


def test_values_that_are_mostly_equal_fill_fewer_buckets() -> None:
    space = FieldSpace(USER, ITEM).fitted([day(item=items(price=[0.0] * 80 + [1.0] * 10 + [2.0] * 10))])
    assert space.edges["price"].tolist() == [0.0]
    assert space.filled(ITEM[1]) == 2
    assert space.encode("item", items(price=[0.0, 1.0, 7.0])).statistical[:, 0].tolist() == [0, 1, 1]


def test_an_extended_space_encodes_what_was_known_as_before_and_leaves_the_edges() -> None:
    first = day(
        users(recent=[["b"], ["b", "c"]]),
        items(item_id=["a", "a", "b"], price=[1.0, 2.0, 3.0], tags=[["x", "y"], ["x"], ["y"]]),
    )
    space = FieldSpace(USER, ITEM).fitted([first])
    assert space.vocabularies["item_id"] == ("b", "a")  # counted over both fields; c came once
    later = day(users(country=["de", "de", "fr"]), items(item_id=["c", "c", "a", "d"], price=[70.0, 80.0, 90.0, 99.0]))
    extended = space.extended([later])
    assert extended.vocabularies["item_id"] == ("b", "a", "c")
    assert extended.vocabularies["country"] == ("de",)
    assert equal(space.encode("item", first.item), extended.encode("item", first.item))
    assert extended.edges["price"].tolist() == space.edges["price"].tolist()
    assert extended.rows_of(ITEM[0]) == space.rows_of(ITEM[0]) + 1
    assert extended.encode("item", later.item).categorical[:, 0].tolist() == [4, 4, 3, 1]
    assert space.encode("item", later.item).categorical[:, 0].tolist() == [1, 1, 3, 1]


def test_a_space_does_not_depend_on_how_its_rows_are_cut_or_ordered() -> None:
    rng = np.random.default_rng(1)
    ids, prices = rng.integers(0, 30, 200), rng.normal(size=200)
    whole = FieldSpace(USER, ITEM).fitted([day(item=items(item_id=ids, price=prices))])
    order = rng.permutation(200)
    parts = [day(item=items(item_id=ids[part], price=prices[part])) for part in np.array_split(order, 7)]
    assert whole.digest() == FieldSpace(USER, ITEM).fitted(parts).digest()
    assert whole.digest() != whole.extended([day(item=items(item_id=[99, 99]))]).digest()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 5), st.sampled_from(["", "a", "3"])), min_size=1, max_size=12))
def test_rows_encoded_one_by_one_equal_rows_encoded_together(values: list[int | str | None]) -> None:
    space = FieldSpace(USER, ITEM, {"price": np.zeros(0)}, {"item_id": ("3", "a")})
    lists = [values[: i + 1] for i in range(len(values))]
    together = space.encode("item", items(item_id=values))
    histories = space.encode("user", users(recent=lists))
    expected = {None: 0, "": 0, 3: 2, "3": 2, "a": 3}
    assert together.categorical[:, 0].tolist() == [expected.get(value, 1) for value in values]
    for i in range(len(values)):
        assert equal(space.encode("item", items(item_id=[values[i]])), together.take(np.array([i])))
        kept = [expected.get(value, 1) for value in lists[i] if value not in (None, "")][-3:]
        assert histories.sequential[i, 0].tolist() == kept + [0] * (3 - len(kept))
        assert equal(space.encode("user", users(recent=[lists[i]])), histories.take(np.array([i])))


@pytest.mark.parametrize(
    "column",
    [np.array([3, 7]), np.array(["3", "7"]), ["3", 7], np.array([3.0, 7.0]), np.array([3, "7"], dtype=np.object_)],
)
def test_a_whole_number_and_its_text_are_one_category(column: Any) -> None:
    space = FieldSpace(USER, ITEM, {"price": np.zeros(0)}, {"item_id": ("7", "3")})
    assert space.encode("item", items(item_id=column)).categorical[:, 0].tolist() == [3, 2]


def test_a_matrix_of_sequences_is_as_lists_with_negative_entries_as_padding() -> None:
    space = FieldSpace(USER, ITEM, None, {"item_id": ("1", "2")})
    matrix = np.array([[1, 2, 9, 2], [-1, -1, 2, 1], [-1, -1, -1, -1]])
    lists = [[1, 2, 9, 2], [2, 1], []]
    assert equal(space.encode("user", users(recent=matrix)), space.encode("user", users(recent=lists)))
    assert space.encode("user", users(recent=matrix)).sequential[0, 0].tolist() == [3, 1, 3]  # the latest three


def test_vectors_stand_side_by_side_and_what_is_missing_is_zero() -> None:
    space = FieldSpace((Field("a", "dense", length=2), Field("b", "dense")), ())
    rows = space.encode("user", {"a": [[1.0, np.nan], [3.0, 4.0]], "b": [5.0, 6.0]})
    assert rows.dense.tolist() == [[1.0, 0.0, 5.0], [3.0, 4.0, 6.0]]
    assert rows.sequential.shape == (2, 0, 0)
    assert len(space.encode("item", {"other": [1, 2, 3]})) == 3


def test_a_file_gives_the_same_space_bit_for_bit() -> None:
    space = FieldSpace(USER, ITEM, {"price": np.array([0.1, 1e300])}, {"item_id": ("é\0", "a"), "tags": ("x",)})
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **space.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = FieldSpace.from_arrays(dict(arrays))
    assert again.digest() == space.digest()
    assert (again.user, again.item, again.vocabularies) == (space.user, space.item, space.vocabularies)
    assert_array_equal(again.edges["price"], space.edges["price"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"price": [1.0]}, "'item_id' has no column; there are: price"),
        (items(item_id=["a"]) | {"price": [1.0, 2.0]}, "'price': 2 rows, but 'item_id' has 1"),
        (items(price=["cheap"]), "'price': not a column of numbers"),
        (items(tags=["x"]), "'x' is no list of categories"),
        (items(score=[[1.0, 2.0]]), r"'score': must have the shape \(n, 1\), got \(1, 2\)"),
        (items(item_id=[{"a": 1}]), "is no category; give texts or whole numbers"),
    ],
)
def test_a_column_that_is_none_of_its_field_is_refused_by_name(columns: dict[str, Any], said: str) -> None:
    space = FieldSpace(USER, ITEM, {"price": np.zeros(0)})
    with pytest.raises(ValueError, match=said):
        space.encode("item", columns)


def test_a_space_is_refused_that_could_not_encode() -> None:
    with pytest.raises(ValueError, match="buckets are not fitted"):
        FieldSpace(USER, ITEM).encode("item", items(item_id=["a"]))
    with pytest.raises(ValueError, match="'price' is declared twice"):
        FieldSpace((Field("price", "dense"),), ITEM)
    with pytest.raises(ValueError, match="'tag' belongs to no field"):
        FieldSpace(USER, ITEM, None, {"tag": ()})
    with pytest.raises(ValueError, match="must rise"):
        FieldSpace(USER, ITEM, {"price": np.array([2.0, 1.0])})
    with pytest.raises(ValueError, match="'tags' holds a text twice"):
        FieldSpace(USER, ITEM, None, {"tags": ("a", "a")})
    with pytest.raises(ValueError, match="field price: length is of sequential and dense fields"):
        Field("price", "statistical", length=2)
