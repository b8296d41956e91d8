"""Decisions that were answered and are not in the log: kept a while for the retry that may record them."""

from __future__ import annotations

from collections import OrderedDict

from engine.records import Decision


class UnrecordedDecisions:
    """The latest of them by id, bounded in bytes: each carries its whole context.

    Not safe for threads; its owner has a lock.

    Parameters
    ----------
    max_bytes
        Most bytes of serialized decisions; beyond it the oldest are forgotten.
    """

    def __init__(self, max_bytes: int = 67_108_864) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, decision: Decision) -> None:
        """Keep a decision."""
        self.take(decision.decision_id)
        data = decision.SerializeToString()
        self._kept[decision.decision_id] = data
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest)

    def take(self, decision_id: str) -> Decision | None:
        """Hand a decision out, and keep it no longer; ``None``: it is not here."""
        data = self._kept.pop(decision_id, None)
        if data is None:
            return None
        self._bytes -= len(data)
        return Decision.FromString(data)
