"""Plackett-Luce: a ranked list by drawing without replacement.

Plackett, *The Analysis of Permutations*, 1975; drawn at once by Gumbel-top-k as in Kool, van Hoof and Welling,
*Stochastic Beams and Where to Find Them*, ICML 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from engine.slates.slate import Slate, check_slots

Float64 = NDArray[np.float64]


class PlackettLuce:
    """Slot by slot an action is drawn from what is left of one vector.

    The first slot has the vector itself; each later one has it again without the actions that stand before, divided by
    what is left. Any exploration's vector will do; with softmax it is the classical model.

    Parameters
    ----------
    p : ndarray of float64, shape (n_actions,)
        Not negative, finite; need not have sum 1. Actions of probability 0 are never drawn.

    Examples
    --------
    >>> import numpy as np
    >>> model = PlackettLuce(np.array([0.5, 0.3, 0.2]))
    >>> round(model.probability([1, 0, 2]), 10)  # 0.3 * 0.5 / 0.7
    0.2142857143
    >>> slate = model.draw_slate("d1", "leeway", slots=2)
    >>> slate.probability == model.probability(slate.actions)
    True
    """

    def __init__(self, p: Float64) -> None:
        if p.ndim != 1 or not (np.isfinite(p).all() and (p >= 0.0).all() and p.sum() > 0.0):
            raise ValueError("p must be a vector of finite numbers, none negative and one positive")
        self.p = p

    def draw_slate(self, decision_id: str, salt: str, slots: int) -> Slate:
        """Return the list of ``slots`` actions that belongs to a decision id.

        The same (id, salt, vector, slots) gives the same list at any time; fewer slots give its beginning. The number
        of each action is a hash of (id, salt, index). Raises ``ValueError`` where fewer actions have a positive
        probability.
        """
        check_slots(slots, int(np.count_nonzero(self.p)))
        with np.errstate(divide="ignore"):  # the logarithm of 0: the action is last
            keys = np.log(self.p) + gumbels(decision_id, salt, len(self.p))
        # Stable: of two equal keys, once in 2^53, the first action is taken.
        ranked = np.argsort(-keys, kind="stable")[:slots]
        return self.slate([int(action) for action in ranked])

    def slate(self, actions: Sequence[int]) -> Slate:
        """Return a given list with its vectors; raises ``ValueError`` where it could not have been drawn."""
        vectors = np.empty((len(actions), len(self.p)))
        for slot, action in enumerate(actions):
            vectors[slot] = conditional(self.p, actions[:slot])
            if not vectors[slot, action] > 0.0:
                raise ValueError(f"slot {slot} has action {action}, which has probability 0 there")
        return Slate(tuple(actions), vectors)

    def probability(self, actions: Sequence[int]) -> float:
        """Return the probability of a list; 0 where it could not be drawn."""
        total = 1.0
        for slot, action in enumerate(actions):
            total *= float(conditional(self.p, actions[:slot])[action])
            if total == 0.0:
                break
        return total


def conditional(p: Float64, taken: Sequence[int]) -> Float64:
    """Return the vector of the next slot, given the actions that are taken.

    What is left is summed, not subtracted from 1: with one action of nearly all the probability the others keep theirs.

    >>> import numpy as np
    >>> conditional(np.array([0.5, 0.3, 0.2]), [0]).round(10).tolist()
    [0.0, 0.6, 0.4]
    """
    left = p.copy()
    left[list(taken)] = 0.0
    greatest = left.max()
    if greatest == 0.0:
        return left
    left /= greatest  # so that the sum of the smallest numbers is one that float64 knows
    left /= left.sum()
    return left


def gumbels(decision_id: str, salt: str, count: int) -> Float64:
    """Return a standard Gumbel number for each action of a decision: a hash of (id, salt, index).

    One keyed hash of id and salt is the seed of SplitMix64 (Steele, Lea and Flood 2014), whose i-th number is action
    i's: all of them are made at once.
    """
    message = f"{len(salt)}:{salt}{decision_id}".encode()
    seed = np.uint64(int.from_bytes(blake2b(message, digest_size=8, person=b"slate").digest(), "big"))
    with np.errstate(over="ignore"):
        x = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (x ^ (x >> np.uint64(31))) >> np.uint64(12)
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-52  # never 0 nor 1
    return -np.log(-np.log(uniform))
