"""What explorations around another one have in common."""

from __future__ import annotations

from engine.exploration.base import Exploration


class Wrapper(Exploration):
    """Needs what the inner exploration needs, and is due when it is."""

    def __init__(self, inner: Exploration) -> None:
        self.inner = inner
        self.needs = inner.needs

    def due(self, served: int, learned: int) -> bool:
        """Say what the inner one says."""
        return self.inner.due(served, learned)
