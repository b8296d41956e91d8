"""Tables of embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from engine.recommender.space import FieldSpace
from tests.training.elbo_tds.shop import ITEM, USER
from training.elbo_tds.embeddings import (
    CodeTable,
    Layout,
    adam_rows,
    first_rows,
    first_table,
    grown,
    rows_at,
    with_rows,
)

RNG = np.random.default_rng(2)


def space(items: int) -> FieldSpace:
    edges = {"age": np.arange(3.0), "price": np.arange(3.0)}
    return FieldSpace(USER, ITEM, edges, {"item_id": [f"i{n}" for n in range(items)], "kind": ["a", "b"]})


def test_a_first_row_depends_on_the_seed_the_name_and_the_row_alone() -> None:
    whole = first_rows(5, "item_id", 0, 100, 6, 0.1)
    np.testing.assert_array_equal(first_rows(5, "item_id", 40, 60, 6, 0.1), whole[40:60])
    assert (first_rows(5, "brand", 0, 100, 6, 0.1) != whole).all()
    assert (first_rows(6, "item_id", 0, 100, 6, 0.1) != whole).all()
    assert abs(whole.std() - 0.1) < 0.01


def test_fields_that_share_a_vocabulary_share_its_rows() -> None:
    layout = Layout.of(space(10))
    assert (
        layout.lookup(space(10), "user", "sequential").start == layout.lookup(space(10), "item", "categorical").start[0]
    )
    assert layout.bucket_rows == 18
    assert layout.code_rows == 16 + 8 + 8


def test_a_table_grows_with_its_vocabulary_and_keeps_what_it_learned() -> None:
    old, new = Layout.of(space(10)), Layout.of(space(30))
    rows, first, second = (RNG.normal(size=(old.code_rows, 4)).astype(np.float32) for _ in range(3))
    found = grown(CodeTable(*map(jnp.asarray, (rows, first, second))), old, new, 0.1, 5)
    fresh = first_table(new.codes, 4, 0.1, 5)
    starts = {name: start for name, start, _ in new.codes}
    for name, start, count in old.codes:
        there = slice(starts[name], starts[name] + count)
        for was, now in zip((rows, first, second), found, strict=True):
            np.testing.assert_array_equal(np.asarray(now)[there], was[start : start + count])
    np.testing.assert_array_equal(np.asarray(found.rows)[16:32], fresh[16:32])
    assert not np.asarray(found.first)[16:32].any()


def test_a_table_that_has_room_is_left_alone() -> None:
    layout = Layout.of(space(10))
    table = CodeTable(*(jnp.zeros((layout.code_rows, 4)) for _ in range(3)))
    assert grown(table, layout, Layout.of(space(13)), 0.1, 5) is table


def test_adam_on_rows_is_adam_where_every_row_comes_and_leaves_others_alone() -> None:
    rows = RNG.normal(size=(6, 4)).astype(np.float32)
    table = CodeTable(jnp.asarray(rows), jnp.zeros((6, 4)), jnp.zeros((6, 4)))
    adam, of_rows = optax.adam(0.01), jax.jit(adam_rows)

    def stepped(table: CodeTable, active: jax.Array, gradient: jax.Array, step: int) -> CodeTable:
        rows: CodeTable = of_rows(rows_at(table, active), gradient, jnp.float32(step), jnp.float32(0.01))
        changed: CodeTable = with_rows(table, active, rows)
        return changed

    expected, moments = jnp.asarray(rows), adam.init(jnp.asarray(rows))
    for step in range(1, 4):
        gradient = jnp.asarray(RNG.normal(size=(6, 4)).astype(np.float32))
        moves, moments = adam.update(gradient, moments)
        expected = expected + moves
        # In any order, with padding beyond the table.
        active = jnp.asarray([3, 1, 0, 2, 5, 4, 6, 6])
        table = stepped(table, active, jnp.concatenate([gradient[active[:6]], jnp.ones((2, 4))]), step)
    learned = np.asarray(table.rows)
    np.testing.assert_allclose(learned, np.asarray(expected), atol=1e-6)
    lazy = stepped(table, jnp.asarray([2]), jnp.ones((1, 4)), 4)
    changed = (np.asarray(lazy.rows) != learned).any(axis=1)
    assert changed.tolist() == [False, False, True, False, False, False]
