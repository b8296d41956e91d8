"""The window of reference: the first feedbacks of a generation, from which bins and expectations are frozen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from monitoring.allocation import MONTH_MS
from monitoring.bins import Values
from monitoring.rows import Rows
from monitoring.state import Array

#: The shortest window: replayed times may stand still.
_LEAST_SPAN_MS = 1


class Reference:
    """Collects raw columns until there are enough rows.

    Parameters
    ----------
    rows
        How many.
    skip
        Rows to pass over first.
    """

    def __init__(self, rows: int, skip: int = 0) -> None:
        self._rows = rows
        self._skip = skip
        self._columns: dict[str, list[Values]] = {}
        self._seen = 0
        self._first_ms: int | None = None
        self._last_ms = 0

    def take(self, rows: Rows, raw: dict[str, Values]) -> int | None:
        """Take rows; return how many of them it took to complete the window, ``None`` if it is not complete yet."""
        skipped = min(self._skip, len(rows))
        self._skip -= skipped
        taken = slice(skipped, skipped + min(len(rows) - skipped, self._rows - self._seen))
        times = rows.time_ms[taken]
        if not len(times):
            return None
        if self._first_ms is None:
            self._first_ms = int(times[0])
        for name, values in {**raw, "time_ms": rows.time_ms.astype(np.float64)}.items():
            self._columns.setdefault(name, []).append(values[taken])
        self._seen += len(times)
        self._last_ms = max(self._last_ms, int(times.max()))
        return taken.stop if self._seen == self._rows else None

    @property
    def per_month(self) -> float:
        """Rows a month at the rate of the window."""
        assert self._first_ms is not None
        return self._seen * MONTH_MS / max(_LEAST_SPAN_MS, self._last_ms - self._first_ms)

    def columns(self) -> dict[str, Values]:
        """Return what was kept, the decision times as ``time_ms`` among it."""
        return {name: np.concatenate(parts) for name, parts in self._columns.items()}

    def save(self, prefix: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the state as JSON values and arrays."""
        texts: dict[str, str] = {}
        arrays: dict[str, Array] = {}
        for name, values in self.columns().items():
            if values.dtype == object:
                texts[name] = json.dumps(values.tolist())
            else:
                arrays[f"{prefix}column/{name}"] = np.asarray(values, np.float64)
        fields = {
            "rows": self._rows,
            "skip": self._skip,
            "seen": self._seen,
            "first_ms": self._first_ms,
            "last_ms": self._last_ms,
            "texts": texts,
        }
        return fields, arrays

    @classmethod
    def restored(cls, fields: dict[str, Any], arrays: dict[str, Any], prefix: str) -> Reference:
        """Return the window of a saved state."""
        reference = cls(fields["rows"], fields["skip"])
        reference._seen, reference._first_ms = fields["seen"], fields["first_ms"]
        reference._last_ms = fields["last_ms"]
        start = f"{prefix}column/"
        reference._columns = {
            name.removeprefix(start): [values] for name, values in arrays.items() if name.startswith(start)
        }
        for name, text in fields["texts"].items():
            values = json.loads(text)
            column = np.empty(len(values), object)
            column[:] = values
            reference._columns[name] = [column]
        return reference
