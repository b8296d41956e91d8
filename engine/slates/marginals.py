"""How likely a slot has an item whatever stands above it: the average over all beginnings of a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Vector of the next slot, given the actions that stand above it, in any order.
VectorGiven = Callable[[Sequence[int]], Float64]

#: Beginnings of a list that are all followed; where there may be more, ``DRAWS`` are drawn.
EXACT = 512
DRAWS = 256


def marginals(
    given: VectorGiven, items: Sequence[int], seed: int, *, exact: int = EXACT, draws: int = DRAWS
) -> Float64:
    """Return P(slot j has ``items[j]``), the average over what may stand above, for each j.

    The vector of a slot depends on the set of actions above it alone, in Plackett-Luce and in the cascade of one
    prediction. So the sets of j actions are followed with their probabilities: exactly as long as they are few, which
    the first slot and lists from a few actions always are. Beyond, ``draws`` of them are drawn, by systematic sampling
    of set and next action together, and each set counts with its whole vector. That is unbiased for each probability.
    It is not for one over it, but a list's own beginning, whose probability is known, bounds the result from below.

    Parameters
    ----------
    given
        The vector of a slot, of sum 1, 0 for the actions that stand above.
    items
        Different actions, by slot.
    seed
        Of the draws: the same arguments give the same result.
    exact
        Pairs of a set and a next action that are all followed at most.
    draws
        Sets that are drawn where there are more.

    Returns
    -------
    ndarray of float64, shape (n_slots,)

    Examples
    --------
    >>> from engine.slates import conditional
    >>> p = np.array([0.5, 0.3, 0.2])
    >>> marginals(lambda taken: conditional(p, taken), [0, 1], 0).round(4).tolist()  # 0.5 * 0.3 / 0.5 + 0.2 * 0.3 / 0.8
    [0.5, 0.375]
    """
    rng = np.random.default_rng(seed)
    found = np.zeros(len(items))
    layer: dict[frozenset[int], float] = {frozenset(): 1.0}
    own = 1.0
    for slot, item in enumerate(items):
        sets = list(layer)
        vectors = np.array([given(sorted(taken)) for taken in sets])
        weights = np.array([layer[taken] for taken in sets])
        own *= float(given(items[:slot])[item])
        found[slot] = max(float(weights @ vectors[:, item]), own)
        if slot + 1 == len(items):
            break
        joint = (weights[:, None] * vectors).ravel()
        follow = np.flatnonzero(joint)
        mass = joint[follow]
        if len(follow) > exact:
            places = (rng.random() + np.arange(draws)) / draws
            summed = np.cumsum(mass)
            # Rounding may leave the last place at the end of the sum.
            picked = np.minimum(np.searchsorted(summed, places * summed[-1], side="right"), len(follow) - 1)
            follow, mass = follow[picked], np.full(draws, 1.0 / draws)
        layer = defaultdict(float)
        for number, weight in zip(follow.tolist(), mass.tolist(), strict=True):
            taken, action = divmod(number, vectors.shape[1])
            layer[sets[taken] | {action}] += weight
    return found
