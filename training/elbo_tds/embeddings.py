"""Tables of embeddings: where fields have their rows, how tables grow with vocabularies, and Adam on single rows."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import SIDES, Field, Kind, Side
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import Float32, Lookup

Int32 = NDArray[np.int32]
_LEAST = 8
_PHILOX_BLOCK = 4  # numbers of 64 bits


@dataclass(frozen=True)
class Layout:
    """Rows of the two tables: of buckets, by statistical field, and of codes, by vocabulary.

    A vocabulary has room for a power of two of codes, so that the table seldom takes another shape, for which the
    look-up is compiled again (the step is not: it sees active rows alone). Fields that share a vocabulary share its
    embeddings.

    Parameters
    ----------
    buckets
        First row and number of rows of each statistical field.
    codes
        First row and room of each vocabulary.
    """

    buckets: tuple[tuple[str, int, int], ...]
    codes: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, space: FieldSpace) -> Layout:
        """Return the layout of a space."""
        statistical = [field for side in SIDES for field in space.fields(side) if field.kind == "statistical"]
        needed: dict[str, int] = {}
        for side in SIDES:
            for field in space.fields(side):
                if field.coded:
                    needed[field.codes] = space.rows_of(field)
        room = {name: max(_LEAST, 1 << (rows - 1).bit_length()) for name, rows in needed.items()}
        return cls(
            _stacked({field.name: space.rows_of(field) for field in statistical}), _stacked(dict(sorted(room.items())))
        )

    @property
    def bucket_rows(self) -> int:
        """Rows of the table of buckets."""
        return sum(rows for _, _, rows in self.buckets)

    @property
    def code_rows(self) -> int:
        """Rows of the table of codes."""
        return sum(rows for _, _, rows in self.codes)

    def lookup(self, space: FieldSpace, side: Side, kind: Kind) -> Lookup:
        """Return where the fields of one side and kind lie."""
        starts = {name: start for name, start, _ in (*self.buckets, *self.codes)}
        fields = [field for field in space.fields(side) if field.kind == kind]
        return Lookup(
            np.array([starts[_table(field)] for field in fields], np.int64),
            np.array([space.rows_of(field) for field in fields], np.int64),
        )


def _table(field: Field) -> str:
    return field.codes if field.coded else field.name


def _stacked(rows: dict[str, int]) -> tuple[tuple[str, int, int], ...]:
    found, start = [], 0
    for name, count in rows.items():
        found.append((name, start, count))
        start += count
    return tuple(found)


class CodeTable(NamedTuple):
    """Embeddings of all codes with Adam's two moments: each float32 of shape (rows, E)."""

    rows: jax.Array
    first: jax.Array
    second: jax.Array


def first_table(layout: tuple[tuple[str, int, int], ...], size: int, deviation: float, seed: int) -> Float32:
    """Return the embeddings that a table starts with."""
    parts = [first_rows(seed, name, 0, rows, size, deviation) for name, _, rows in layout]
    return np.concatenate(parts) if parts else np.zeros((0, size), np.float32)


def first_rows(seed: int, name: str, start: int, stop: int, size: int, deviation: float) -> Float32:
    """Return the first embeddings of some rows of a vocabulary, uniform with this standard deviation.

    A row's numbers depend on the seed, the name and the row alone: not on when the vocabulary grew to it.
    """
    bits = np.random.Philox(key=np.array([seed, zlib.crc32(name.encode())], np.uint64))
    per_row = -(-size // _PHILOX_BLOCK)
    bits.advance(start * per_row)
    numbers = np.random.Generator(bits).random((stop - start, per_row * _PHILOX_BLOCK))[:, :size]
    rows: Float32 = ((numbers - 0.5) * np.sqrt(12.0) * deviation).astype(np.float32)
    return rows


def grown(table: CodeTable, old: Layout, new: Layout, deviation: float, seed: int) -> CodeTable:
    """Return the table in a new layout: old rows with their moments, new ones as :func:`first_rows` has them."""
    if old.codes == new.codes:
        return table
    size = table.rows.shape[1]
    rows = first_table(new.codes, size, deviation, seed)
    first, second = np.zeros_like(rows), np.zeros_like(rows)
    starts = {name: start for name, start, _ in new.codes}
    for name, start, count in old.codes:
        there, here = slice(starts[name], starts[name] + count), slice(start, start + count)
        rows[there], first[there], second[there] = table.rows[here], table.first[here], table.second[here]
    return CodeTable(jnp.asarray(rows), jnp.asarray(first), jnp.asarray(second))


@jax.jit
def rows_at(table: CodeTable, active: jax.Array) -> CodeTable:
    """Return the active rows of a table; for a row beyond it, its last one."""
    return CodeTable(*(part.at[active].get(mode="clip") for part in table))


@partial(jax.jit, donate_argnums=0)
def with_rows(table: CodeTable, active: jax.Array, rows: CodeTable) -> CodeTable:
    """Return the table with other active rows; one beyond the table is passed over. The old table is used up."""
    return CodeTable(*(part.at[active].set(new, mode="drop") for part, new in zip(table, rows, strict=True)))


def adam_rows(rows: CodeTable, gradient: jax.Array, step: jax.Array, learning_rate: jax.Array) -> CodeTable:
    """Return active rows after a step of Adam on them alone; the cost does not grow with the table.

    This is the lazy form of Adam: a row that is not looked up keeps its place and its moments, where Adam proper would
    move it on by its fading moments. Bias is corrected by the count of all steps.
    Source: D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Parameters
    ----------
    rows
        The rows and their moments.
    gradient : float32, shape (U, E)
    step
        1 at the first step.
    learning_rate
        Of the step.
    """
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    first = beta1 * rows.first + (1.0 - beta1) * gradient
    second = beta2 * rows.second + (1.0 - beta2) * jnp.square(gradient)
    move = first / (1.0 - beta1**step) / (jnp.sqrt(second / (1.0 - beta2**step)) + epsilon)
    return CodeTable(rows.rows - learning_rate * move, first, second)
