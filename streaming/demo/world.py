"""The world of the demo: a labelled table played as a bandit. It alone knows the labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.client import Plain
from engine.errors import ConfigError

#: More distinct labels than this are no classes.
MAX_ACTIONS = 50
MIN_ROWS = 50


@dataclass(frozen=True)
class Table:
    """Rows to decide about.

    Attributes
    ----------
    name : str
        Where it comes from.
    schema : dict
        The ``context`` of the decision point.
    rows : list of dict
        The features of each row.
    labels : list of str
        The right action of each row.
    """

    name: str
    schema: dict[str, dict[str, Any]]
    rows: list[dict[str, Plain]]
    labels: list[str]

    @property
    def actions(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(set(self.labels))


def digits() -> Table:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, ten actions."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rows: list[dict[str, Plain]] = [{"pixels": image.tolist()} for image in X]
    # Pixels go from 0 to 16.
    return Table(
        "scikit-learn digits", {"pixels": {"type": "vector", "size": 64, "scale": 0.0625}}, rows, list(map(str, y))
    )


def read_table(path: Path, label: str) -> Table:
    """Read a CSV file: number columns become numbers, all others texts. Raises ``ConfigError``."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"--data {path}: cannot be read as CSV: {error}") from error
    if label not in table.column_names:
        raise ConfigError(f"--label {label}: no such column in {path}; it has: {', '.join(table.column_names)}")
    known = [value not in (None, "") for value in table[label].to_pylist()]
    table = table.filter(pa.array(known))  # a row without a label can be right in no way
    labels = [str(value) for value in table[label].to_pylist()]
    count = len(set(labels))
    if len(labels) < MIN_ROWS:
        raise ConfigError(f"--data {path}: {len(labels)} rows with a label are too few; bring at least {MIN_ROWS}")
    if not 2 <= count <= MAX_ACTIONS:
        raise ConfigError(f"--label {label}: has {count} distinct values; a label has 2 to {MAX_ACTIONS}")
    schema: dict[str, dict[str, Any]] = {}
    columns: dict[str, list[Plain | None]] = {}
    for number, column in enumerate(name for name in table.column_names if name != label):
        name, values = f"f{number}", table[column].to_pylist()
        if pa.types.is_integer(table[column].type) or pa.types.is_floating(table[column].type):
            spread = float(np.nanstd(np.array([np.nan if v is None else v for v in values], dtype=float)))
            schema[name] = {"type": "number", "scale": 1.0 / spread if spread > 0.0 else 1.0}
            columns[name] = values
        else:
            schema[name] = {"type": "text", "buckets": 32}
            columns[name] = [None if value is None else str(value) for value in values]
    rows: list[dict[str, Plain]] = [
        {name: value for name, column in columns.items() if (value := column[i]) is not None and value == value}
        for i in range(len(labels))
    ]
    return Table(path.name, schema, rows, labels)


@dataclass(frozen=True)
class Visit:
    """One decision to be asked for: the row, and the action that would be right."""

    row: int
    right: str


class World:
    """Draws rows, and half way changes the meaning of the labels: what was right for one is now right for another.

    Parameters
    ----------
    table
        The rows.
    change_at
        Number of the first visit after the change.
    seed
        Of every random choice.
    """

    def __init__(self, table: Table, change_at: int, seed: int) -> None:
        self.table = table
        self.change_at = change_at
        self._rng = np.random.default_rng(seed)
        actions = table.actions
        shift = max(1, len(actions) // 3)
        self._after = {action: actions[(i + shift) % len(actions)] for i, action in enumerate(actions)}
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def visit(self, number: int) -> Visit:
        """Return the next visit; the table is gone through in a new random order each time."""
        if len(self._order) == 0:
            self._order = self._rng.permutation(len(self.table.rows))
        row, self._order = int(self._order[0]), self._order[1:]
        label = self.table.labels[row]
        return Visit(row, label if number < self.change_at else self._after[label])

    def fate(self) -> Fate:
        """Draw what becomes of an outcome on its way."""
        u = self._rng.random(4)
        return Fate(
            lost=bool(u[0] < 0.02),
            late=bool(0.02 <= u[0] < 0.025),
            again=bool(u[1] < 0.05),
            delay_s=float(min(-0.15 * np.log(u[2]), 0.7)),
            second_delay_s=float(0.3 * u[3]),
        )


@dataclass(frozen=True)
class Fate:
    """What becomes of an outcome: lost, late, sent twice; delays shuffle the order."""

    lost: bool
    late: bool
    again: bool
    delay_s: float
    second_delay_s: float
