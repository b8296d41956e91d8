"""How greedy an exploration is after so many feedbacks."""

from __future__ import annotations

from engine.exploration.base import GREATEST


def power(scale: float, exponent: float, learned: int) -> float:
    """Return ``scale * learned ** exponent``; 0 (uniform) before the first feedback.

    >>> power(10.0, 0.5, 0), power(10.0, 0.5, 100), power(7.0, 0.0, 10**9)
    (0.0, 100.0, 7.0)
    """
    return min(scale * learned**exponent, GREATEST) if learned > 0 else 0.0
