"""The compiled loop of extended value iteration; ``evi`` says what it computes, and imports it when it is needed."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, types
from numpy.typing import NDArray

from engine.compiled import compiled, read

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@compiled(
    types.Tuple((float64[:, ::1], float64, float64))(  # type: ignore[no-untyped-call]
        read(float64, 2), read(float64, 3), read(float64, 2), read(boolean, 2), float64, float64, int64
    )
)
def sweeps(
    r: Float64, p: Float64, d_p: Float64, allowed: Bool, epsilon: float, damping: float, most: int
) -> tuple[Float64, float, float]:
    """Sweep until the span of T u - u is below ``epsilon``; return q, and the least and the greatest of T u - u."""
    states, actions = r.shape
    u = np.zeros(states)
    q = np.empty((states, actions))
    moved = np.empty(states)
    low = high = 0.0
    for _ in range(most):
        ascending = np.argsort(u, kind="mergesort")  # stable: equal values keep their order on every machine
        best = ascending[-1]
        for o in range(states):
            top = -np.inf
            for a in range(actions):
                if not allowed[o, a]:
                    q[o, a] = -np.inf
                    continue
                # The mass that the best state may gain is what the worst ones lose, one after the other.
                excess = min(1.0 - p[o, a, best], 0.5 * d_p[o, a])
                value = excess * u[best]
                for i in range(states):
                    o2 = ascending[i]
                    taken = min(excess, p[o, a, o2]) if o2 != best else 0.0
                    excess -= taken
                    value += (p[o, a, o2] - taken) * u[o2]
                q[o, a] = r[o, a] + value
                top = max(top, q[o, a])
            moved[o] = top - u[o]
        low, high = moved.min(), moved.max()
        if high - low < epsilon:
            break
        u += damping * moved
        u -= u.min()
    return q, low, high
