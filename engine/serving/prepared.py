"""Decisions that are made before their calls have their turn, so that many are scored in one matrix."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.sealed import SealedDecision
from engine.serving.direct import Direct


class Prepared:
    """What was decided ahead, by request: an object is what it was asked with, not what equals it."""

    def __init__(self) -> None:
        # With the request itself: as long as it is kept, no other has its number.
        self._made: dict[int, tuple[DecideRequestParts, Direct, SealedDecision]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._made.clear()

    def keep(
        self, direct: Direct, requests: Sequence[DecideRequestParts], made: Sequence[SealedDecision | None]
    ) -> None:
        """Keep what was made by one policy; ``None``: the request has to go the long way."""
        for request, decision in zip(requests, made, strict=True):
            if decision is not None:
                self._made[id(request)] = (request, direct, decision)

    def take(self, request: DecideRequestParts, direct: Direct) -> SealedDecision | None:
        """Return what was decided for a request, once, if it is still ``direct`` that decides."""
        kept = self._made.pop(id(request), None)
        return kept[2] if kept is not None and kept[0] is request and kept[1] is direct else None
