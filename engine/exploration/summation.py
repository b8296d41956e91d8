"""Kahan's sum, which does not depend on the order of what is added, but for the last digit."""

from __future__ import annotations

from engine.compiled import compiled
from engine.exploration.base import Float64


@compiled("float64(float64[::1])")
def precise_sum(values: Float64) -> float:
    """Return the sum; the rounding of each step is made good in the next (Kahan 1965)."""
    total = lost = 0.0
    for value in values:
        term = value - lost
        longer = total + term
        lost = (longer - total) - term
        total = longer
    return total
