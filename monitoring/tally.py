"""What is expected of each phase of a season: counted over whole periods, in bins that are frozen already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from monitoring.allocation import MONTH_MS
from monitoring.bins import Values
from monitoring.config import MonitorsConfig
from monitoring.plans import Plan
from monitoring.rows import Rows
from monitoring.state import Array
from monitoring.strata import PERIOD_MS, PERIODS, expected


class Tally:
    """Counts the categories of each stream by phase, until two whole periods are over.

    Parameters
    ----------
    config
        Its season is not none.
    plans
        The streams, with frozen bins.
    """

    def __init__(self, config: MonitorsConfig, plans: Sequence[Plan]) -> None:
        self._config = config
        self._plans = plans
        self._counts = [np.zeros((plan.strata_count(config), len(plan.bins.names)), np.int64) for plan in plans]
        self._rows = 0
        self._first_ms: int | None = None

    def take(self, rows: Rows, raw: dict[str, Values]) -> int | None:
        """Count rows; return how many of them it took to complete the periods, ``None`` if they are not over yet."""
        if self._first_ms is None:
            self._first_ms = int(rows.time_ms[0])
        over = np.flatnonzero(rows.time_ms >= self._first_ms + PERIODS * PERIOD_MS[self._config.season])
        taken = int(over[0]) if len(over) else len(rows)
        part = slice(0, taken)
        columns = {name: values[part] for name, values in raw.items()}
        for plan, counts in zip(self._plans, self._counts, strict=True):
            plan.tally(counts, rows.time_ms[part], columns, self._config)
        self._rows += taken
        return taken if len(over) else None

    @property
    def per_month(self) -> float:
        """Rows a month at the rate of the periods."""
        return self._rows * MONTH_MS / (PERIODS * PERIOD_MS[self._config.season])

    def plans(self) -> list[Plan]:
        """Return the streams with what is expected of each phase."""
        return [
            replace(plan, table=expected(counts), share=float(counts.sum()) / max(1, self._rows))
            for plan, counts in zip(self._plans, self._counts, strict=True)
        ]

    def save(self, prefix: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the state as JSON values and arrays."""
        fields = {"plans": [plan.saved() for plan in self._plans], "rows": self._rows, "first_ms": self._first_ms}
        return fields, {f"{prefix}{place}": counts.ravel() for place, counts in enumerate(self._counts)}

    @classmethod
    def restored(cls, config: MonitorsConfig, fields: dict[str, Any], arrays: dict[str, Any], prefix: str) -> Tally:
        """Return the tally of a saved state."""
        tally = cls(config, [Plan.restored(text) for text in fields["plans"]])
        tally._counts = [arrays[f"{prefix}{place}"].reshape(counts.shape) for place, counts in enumerate(tally._counts)]
        tally._rows, tally._first_ms = fields["rows"], fields["first_ms"]
        return tally
