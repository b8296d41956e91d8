"""Extended value iteration: the best policy of the best Markov decision process among all plausible ones.

Auer, Jaksch and Ortner, *Near-optimal Regret Bounds for Reinforcement Learning*, JMLR 11 (2010), section 3.1. The
plausible processes have rewards within ``d_r`` of ``r`` and transitions within ``d_p`` of ``p`` in L1 norm. One
sweep is

    (T u)(o) = max_a { min(1, r(o,a) + d_r(o,a)) + max_p' sum_o' p'(o') u(o') }

whose inner maximum is found greedily: up to d_p / 2 of mass goes to the state of greatest u, the excess is taken from
those of the least. Two remarks on the form here:

- The iterate moves by ``u + 0.9 (T u - u)`` instead of ``T u``: undamped, a process that returns to each state at even
  times alone never settles. Value and policy lose nothing: for *any* u, the greatest gain of a plausible process lies
  between min(T u - u) and max(T u - u), and the policy that is greedy for u attains at least the former (there,
  theorem 7).
- With both radii 0 it is relative value iteration, which gives the optimal gain of a known process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_DAMPING = 0.9
#: A process that is all but disconnected would otherwise hold up the caller; ``Plan.accuracy`` tells what was reached.
_MOST_SWEEPS = 100_000


@dataclass(frozen=True)
class Plan:
    """What extended value iteration found.

    Attributes
    ----------
    q : ndarray of float64, shape (n_states, n_actions)
        Optimistic reward of the pair plus the value of what follows, the least value of a state being 0; minus infinity
        where the action is not allowed.
    policy : ndarray of int64, shape (n_states,)
        The action of greatest q, the first of equal ones.
    gain : float
        Optimistic reward per step in the long run, within ``accuracy`` / 2.
    accuracy : float
        Span of T u - u at the end.
    """

    q: Float64
    policy: NDArray[np.int64]
    gain: float
    accuracy: float


def extended_value_iteration(
    r: Float64, p: Float64, d_r: Float64, d_p: Float64, epsilon: float, allowed: Bool | None = None
) -> Plan:
    """Return the optimistic plan.

    Parameters
    ----------
    r : ndarray of float64, shape (n_states, n_actions)
        Estimated rewards, in [0, 1].
    p : ndarray of float64, shape (n_states, n_actions, n_states)
        Estimated transition probabilities.
    d_r, d_p : ndarray of float64, shape (n_states, n_actions)
        Radii of the plausible rewards, and of the plausible transitions in L1 norm.
    epsilon
        Accuracy: it ends when the span of T u - u is below.
    allowed : ndarray of bool, shape (n_states, n_actions), optional
        Which actions a state has; all of them by default. Each state needs one.

    Examples
    --------
    Stay for 0.5, or leave for a state that pays 1 and leads back:

    >>> import numpy as np
    >>> r, none = np.array([[0.5, 0.0], [1.0, 1.0]]), np.zeros((2, 2))
    >>> p = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> plan = extended_value_iteration(r, p, none, none, epsilon=1e-9)
    >>> plan.policy.tolist(), round(plan.gain, 6)
    ([1, 1], 1.0)
    """
    if allowed is None:
        allowed = np.ones(r.shape, np.bool_)
    # Compiled by processes that plan alone.
    from engine.sequential.evi_kernel import sweeps

    optimistic = np.ascontiguousarray(np.minimum(1.0, r + d_r), dtype=np.float64)
    p, d_p = (np.ascontiguousarray(array, dtype=np.float64) for array in (p, d_p))
    q, low, high = sweeps(optimistic, p, d_p, np.ascontiguousarray(allowed), epsilon, _DAMPING, _MOST_SWEEPS)
    return Plan(q, q.argmax(axis=1), 0.5 * (low + high), high - low)


def optimal_gain(r: Float64, p: Float64, allowed: Bool | None = None, epsilon: float = 1e-8) -> float:
    """Return the greatest reward per step that any policy of a known process has in the long run."""
    exact = np.zeros(r.shape)
    return extended_value_iteration(r, p, exact, exact, epsilon, allowed).gain
