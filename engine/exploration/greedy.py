"""The best action and uniform exploration, mixed: the core of all explorations that are greedy for the most part."""

from __future__ import annotations

import numpy as np

from engine.compiled import compiled
from engine.exploration.base import Float64


@compiled("float64[::1](float64[::1], float64)")
def greedy(scores: Float64, epsilon: float) -> Float64:
    """Return ``epsilon / K`` for each action and the rest for the best; those that tie for it share the rest."""
    count = len(scores)
    top = scores[0]
    ties = 0
    for index in range(count):
        if scores[index] > top:
            top = scores[index]
            ties = 0
        ties += scores[index] == top
    p = np.full(count, epsilon / count)
    for index in range(count):
        if scores[index] == top:
            p[index] += (1.0 - epsilon) / ties
    return p
