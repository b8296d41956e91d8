"""The window of reference: the first feedbacks of a generation, from which bins and expectations are frozen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from monitoring.allocation import MONTH_MS
from monitoring.bins import Values
from monitoring.config import MonitorsConfig
from monitoring.detector import IntArray
from monitoring.rows import Rows
from monitoring.state import Array
from monitoring.strata import PERIOD_MS, PHASES, phases

#: Rows kept of one phase of a season.
_OF_A_PHASE = 200
#: A second is taken as the shortest window: replayed times may stand still.
_LEAST_SPAN_MS = 1_000


class Reference:
    """Collects raw columns until there are enough: ``warm_up`` rows, and a whole period of the season.

    Of a season it keeps up to 200 rows of each phase, so that its size has a bound.

    Parameters
    ----------
    config
        ``warm_up`` and ``season``.
    skip
        Rows to pass over first.
    """

    def __init__(self, config: MonitorsConfig, skip: int = 0) -> None:
        self._config = config
        self._skip = skip
        self._columns: dict[str, list[Values]] = {}
        self._kept = np.zeros(PHASES[config.season], np.int64)
        self._seen = 0
        self._first_ms: int | None = None
        self._last_ms = 0

    def take(self, rows: Rows, raw: dict[str, Values]) -> int | None:
        """Take rows; return how many of them it took to complete the window, ``None`` if it is not complete yet."""
        skipped = min(self._skip, len(rows))
        self._skip -= skipped
        if skipped == len(rows):
            return None
        times = rows.time_ms[skipped:]
        if self._first_ms is None:
            self._first_ms = int(times[0])
        keep, count = self._keep(times)
        chosen = np.flatnonzero(keep) + skipped
        columns = {**raw, "time_ms": rows.time_ms.astype(np.float64)}
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values[chosen])
        self._seen += count
        self._last_ms = max(self._last_ms, int(times[:count].max()))
        return skipped + count if self._complete(self._last_ms) else None

    def _keep(self, times: IntArray) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], int]:
        """Return which rows are kept, and after how many of them the window is complete, or all."""
        config = self._config
        keep = np.zeros(len(times), np.bool_)
        if config.season == "none":
            count = min(len(times), config.warm_up - int(self._kept[0]))
            keep[:count] = True
            self._kept[0] += count
            return keep, count
        for place, phase in enumerate(phases(times, config.season).tolist()):
            if self._kept[phase] < _OF_A_PHASE:
                self._kept[phase] += 1
                keep[place] = True
            if self._complete(int(times[place])):
                return keep, place + 1
        return keep, len(times)

    def _complete(self, now_ms: int) -> bool:
        if self._first_ms is None or self._kept.sum() < self._config.warm_up:
            # A season with little traffic cannot have as many.
            return self._first_ms is not None and self._full(now_ms) and int(self._kept.sum()) >= 100
        return self._full(now_ms)

    def _full(self, now_ms: int) -> bool:
        period = PERIOD_MS[self._config.season]
        if period == 0:
            return bool(self._kept[0] >= self._config.warm_up)
        assert self._first_ms is not None
        return now_ms - self._first_ms >= period

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
        arrays: dict[str, Array] = {f"{prefix}kept": self._kept}
        for name, values in self.columns().items():
            if values.dtype == object:
                texts[name] = json.dumps(values.tolist())
            else:
                arrays[f"{prefix}column/{name}"] = np.asarray(values, np.float64)
        fields = {
            "skip": self._skip,
            "seen": self._seen,
            "first_ms": self._first_ms,
            "last_ms": self._last_ms,
            "texts": texts,
        }
        return fields, arrays

    @classmethod
    def restored(cls, config: MonitorsConfig, fields: dict[str, Any], arrays: dict[str, Any], prefix: str) -> Reference:
        """Return the window of a saved state."""
        reference = cls(config, fields["skip"])
        reference._kept = arrays[f"{prefix}kept"]
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
