"""The served two-tower model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import SnapshotError
from engine.recommender.fields import UNSEEN, Rows
from engine.recommender.two_tower import Layer, Lookup, Tower, TwoTower

RNG = np.random.default_rng(3)
E, T = 4, 2


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def lookup(fields: int, rows: int) -> Lookup:
    return Lookup(np.arange(fields) * rows, np.full(fields, rows))


def tower(S: int, C: int, Q: int, D: int, encoder: bool = True) -> Tower:
    width = (S + C + Q) * E + D
    into: Layer = (numbers(8 if encoder else width, 6), numbers(6))
    return Tower(
        lookup(S, 11),
        lookup(C, 5),
        lookup(Q, 5),
        (numbers(width, 8), numbers(8)) if encoder else None,
        (into, (numbers(6, T * 3), numbers(T * 3))),
    )


MODEL = TwoTower(("click", "buy"), numbers(33, E), numbers(15, E), tower(1, 2, 1, 3), tower(3, 1, 0, 0, encoder=False))


def user_rows(n: int = 6) -> Rows:
    return Rows(
        RNG.integers(0, 11, (n, 1), dtype=np.int32),
        RNG.integers(0, 5, (n, 2), dtype=np.int32),
        RNG.integers(0, 5, (n, 1, 4), dtype=np.int32),
        numbers(n, 3),
    )


def item_rows(n: int = 7) -> Rows:
    empty = np.zeros((n, 0, 0), np.int32)
    return Rows(
        RNG.integers(0, 11, (n, 3), dtype=np.int32), RNG.integers(0, 5, (n, 1), dtype=np.int32), empty, numbers(n, 0)
    )


def by_hand(row: Rows) -> np.ndarray:
    """Return the user vectors of one row, layer by layer in float64."""
    there = row.sequential[0, 0][row.sequential[0, 0] != 0]
    mean = MODEL.codes[there].mean(axis=0) if len(there) else np.zeros(E)
    parts = [MODEL.buckets[row.statistical[0, 0]], MODEL.codes[row.categorical[0, 0]]]
    parts += [MODEL.codes[row.categorical[0, 1] + 5], mean, row.dense[0]]
    x = np.concatenate(parts).astype(np.float64)
    assert MODEL.user.encoder is not None
    x = x @ MODEL.user.encoder[0] + MODEL.user.encoder[1]
    for W, b in MODEL.user.layers:
        x = x @ W + b
        x = np.where(x > 0.0, x, 0.01 * x)
    return x.reshape(T, 3)


def test_vectors_are_those_of_the_layers_one_by_one() -> None:
    rows = user_rows(20)
    found = MODEL.user_vectors(rows)
    for n in range(20):
        np.testing.assert_allclose(found[n], by_hand(rows.take(np.array([n]))), rtol=1e-4, atol=1e-4)


def test_a_logit_is_the_dot_product_of_a_task() -> None:
    user, items = MODEL.user_vectors(user_rows(1))[0], MODEL.item_vectors(item_rows())
    found = MODEL.logits(user, items)
    assert found.shape == (7, T)
    assert found[3, 1] == pytest.approx(float(user[1] @ items[3, 1]), rel=1e-5)


def test_arrays_make_the_same_model_bit_for_bit() -> None:
    again = TwoTower.from_arrays(MODEL.arrays())
    assert again.tasks == MODEL.tasks
    users, items = user_rows(), item_rows()
    np.testing.assert_array_equal(again.user_vectors(users), MODEL.user_vectors(users))
    np.testing.assert_array_equal(again.item_vectors(items), MODEL.item_vectors(items))


def test_a_code_newer_than_the_model_is_read_as_unseen() -> None:
    newer, unseen = user_rows(), user_rows()
    newer = replace(newer, categorical=np.full((6, 2), 9, np.int32))
    unseen = replace(newer, categorical=np.full((6, 2), UNSEEN, np.int32))
    np.testing.assert_array_equal(MODEL.user_vectors(newer), MODEL.user_vectors(unseen))


def test_an_empty_list_and_no_rows_are_no_trouble() -> None:
    empty = replace(user_rows(), sequential=np.zeros((6, 1, 4), np.int32))
    assert np.isfinite(MODEL.user_vectors(empty)).all()
    assert MODEL.user_vectors(user_rows(0)).shape == (0, T, 3)


def test_what_does_not_fit_is_refused() -> None:
    arrays = MODEL.arrays()
    with pytest.raises(SnapshotError, match=r"user\.encoder\.b"):
        TwoTower.from_arrays({name: array for name, array in arrays.items() if name != "user.encoder.b"})
    with pytest.raises(SnapshotError, match="do not follow each other"):
        TwoTower.from_arrays({**arrays, "item.layer1.W": numbers(5, T * 3)})
    with pytest.raises(SnapshotError, match="rows beyond the table's 9"):
        TwoTower.from_arrays({**arrays, "codes": numbers(9, E)})
    with pytest.raises(ValueError, match="4 tasks"):
        TwoTower(("a", "b", "c", "d"), MODEL.buckets, MODEL.codes, MODEL.user, MODEL.item)
    with pytest.raises(ValueError, match="3 fields of a kind of which the model has 1"):
        MODEL.user_vectors(replace(user_rows(), statistical=np.zeros((6, 3), np.int32)))
