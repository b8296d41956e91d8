"""Days as environments in one-pass training: some sessions of each earlier day are kept for the penalty.

A pass over day t sees day t alone, but a penalty compares risks of one model on several environments. So the first
sessions of each of the last days are kept, encoded; a step on day t takes a batch of each of them beside its own. Its
risk is that of day t's rows alone, as without a penalty; kept rows enter by the penalty only. Memory is bounded by
``days * sessions`` sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from engine.recommender.fields import Rows
from training.elbo_tds.batches import Encoded
from training.elbo_tds.config import PenaltyConfig

_KINDS = ("statistical", "categorical", "sequential", "dense")


class Environments:
    """Kept sessions of earlier days.

    Parameters
    ----------
    config
        How many.
    """

    def __init__(self, config: PenaltyConfig) -> None:
        self.config = config
        self._days: dict[int, list[Encoded]] = {}

    def beside(self, day: int, part: Encoded, step: int) -> list[Encoded]:
        """Return one part of each earlier day for a step on a part of ``day``; keep that part if there is room."""
        found = [kept[step % len(kept)] for earlier, kept in sorted(self._days.items()) if earlier != day]
        own = self._days.setdefault(day, [])
        if sum(len(kept) for kept in own) < self.config.sessions:
            own.append(part)
        for old in sorted(self._days)[: -self.config.days - 1]:
            del self._days[old]
        return found[-self.config.days :]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all as plain arrays."""
        found: dict[str, NDArray[Any]] = {}
        for day, parts in self._days.items():
            for number, part in enumerate(parts):
                name = f"{day}.{number}"
                for side, rows in (("user", part.user), ("item", part.item)):
                    found |= {f"{name}.{side}.{kind}": getattr(rows, kind) for kind in _KINDS}
                found |= {f"{name}.session": part.session, f"{name}.labels": part.labels}
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the place of what :meth:`arrays` was called on."""
        self._days = {}
        names = {tuple(map(int, key.split(".")[:2])) for key in arrays}
        for day, number in sorted(names):
            name = f"{day}.{number}"
            user, item = (Rows(*(arrays[f"{name}.{side}.{kind}"] for kind in _KINDS)) for side in ("user", "item"))
            part = Encoded(user, item, arrays[f"{name}.session"], arrays[f"{name}.labels"])
            self._days.setdefault(day, []).append(part)
