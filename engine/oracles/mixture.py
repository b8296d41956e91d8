"""A mixture of the oracles of successive generations: what is expected moves towards the newest, and not all the way.

Exponential smoothing (Brown, *Statistical forecasting for inventory control*, 1959) of the predictions, with a bound on
each step and a dead band: against generations that undo each other's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Oracle
from engine.oracles.nested import flat, parts_of


class MixtureOracle:
    """Expected reward is an exponential average over oracles, the oldest first.

    It begins as what the first member expects. Each later member then moves it by ``share`` of the distance to what
    that member expects: not at all where the distance is within ``dead_band``, and by ``max_change`` at most. An action
    that no member before has known is taken over from the first that knows it; a member that does not know an action
    leaves what is expected of it alone.

    Parameters
    ----------
    members
        Oracles over the same rows.
    codes : ndarray of int64, shape (n_members, 1 + n_actions)
        The code that each member gives to each action of the mixture's own vocabulary; 0: it never saw it. The first
        column is 0.
    share : float
        In (0, 1]: 1 is the newest member alone, where it may move so far.
    max_change : float
        Greatest move from one member to the next, in units of reward.
    dead_band : float
        Distance in units of reward that moves nothing.

    Examples
    --------
    >>> from engine.oracles.linear import LinearOracle
    >>> old, new = (LinearOracle(np.array([[0.0], [value]])) for value in (0.2, 0.6))
    >>> mixture = MixtureOracle([old, new], np.array([[0, 1], [0, 1]]), 0.5)
    >>> mixture.predict(np.zeros((1, 0), np.float32), np.array([1])).round(6).tolist()
    [0.4]
    """

    kind: ClassVar[str] = "mixture"

    def __init__(
        self,
        members: Sequence[Oracle],
        codes: Int64,
        share: float,
        max_change: float = np.inf,
        dead_band: float = 0.0,
    ) -> None:
        self.members = list(members)
        self.codes = np.ascontiguousarray(codes, dtype=np.int64)
        if self.codes.ndim != 2 or len(self.codes) != len(self.members) or not self.members:
            raise ValueError(f"codes {self.codes.shape} do not fit {len(self.members)} members")
        if not (0.0 < share <= 1.0 and max_change > 0.0 and dead_band >= 0.0):
            raise ValueError(f"share {share}, max_change {max_change} and dead_band {dead_band} make no mixture")
        self.share = share
        self.max_change = max_change
        self.dead_band = dead_band
        self.codes.flags.writeable = False

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        own = self.codes[0][codes]
        expected = np.array(self.members[0].predict(X, own), dtype=np.float64)
        # Of an action that nobody ever saw, all know equally little.
        known = (own > 0) | (codes == 0)
        for member, table in zip(self.members[1:], self.codes[1:], strict=True):
            own = table[codes]
            newer = member.predict(X, own)
            knows = (own > 0) | (codes == 0)
            away = newer - expected
            step = np.clip(self.share * away, -self.max_change, self.max_change)
            step[np.abs(away) <= self.dead_band] = 0.0
            expected = np.where(knows & ~known, newer, np.where(knows, expected + step, expected))
            known |= knows
        return expected

    def arrays(self) -> Arrays:
        """Return those of the members, the codes and the settings."""
        settings = np.array([self.share, self.max_change, self.dead_band])
        return {**flat(self.members), "codes": self.codes, "settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> MixtureOracle:
        """Build it from the members' arrays; raises ``ValueError`` where they are damaged."""
        from engine.oracles import ORACLES

        codes, settings = np.asarray(arrays["codes"]), np.asarray(arrays["settings"], dtype=np.float64)
        if not np.issubdtype(codes.dtype, np.integer) or settings.shape != (3,):
            raise ValueError(f"codes of type {codes.dtype} and settings {settings.shape} are of no mixture")
        share, max_change, dead_band = settings.tolist()
        return cls(parts_of(arrays, ORACLES), codes.astype(np.int64), share, max_change, dead_band)


def follow(
    before: Oracle,
    vocabulary_before: Sequence[str],
    oracle: Oracle,
    vocabulary: Sequence[str],
    *,
    share: float,
    max_change: float = np.inf,
    dead_band: float = 0.0,
    members: int = 6,
) -> tuple[MixtureOracle, tuple[str, ...]]:
    """Return the mixture of an oracle with the one that it follows, and its vocabulary.

    Parameters
    ----------
    before, vocabulary_before
        What serves now: an oracle, or a mixture, whose newest members are taken over.
    oracle, vocabulary
        What was fitted anew.
    share, max_change, dead_band
        See ``MixtureOracle``.
    members
        The newest so many are kept, this one included.
    """
    older = before.members if isinstance(before, MixtureOracle) else [before]
    tables = before.codes if isinstance(before, MixtureOracle) else np.arange(len(vocabulary_before) + 1)[None]
    older, tables = older[-(members - 1) :], tables[-(members - 1) :]
    together = tuple(dict.fromkeys([*vocabulary_before, *vocabulary]))
    place = {action: code for code, action in enumerate(together, start=1)}
    codes = np.zeros((len(older) + 1, len(together) + 1), dtype=np.int64)
    codes[:-1, : tables.shape[1]] = tables
    for code, action in enumerate(vocabulary, start=1):
        codes[-1, place[action]] = code
    return MixtureOracle([*older, oracle], codes, share, max_change, dead_band), together
