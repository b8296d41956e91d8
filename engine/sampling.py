"""The draw of an action: in one place, and a pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

#: How far the sum of a vector may be from 1: the rounding of thousands of additions.
TOLERANCE = 1e-9


def uniform(decision_id: str, salt: str) -> float:
    """Return the number in [0, 1) that belongs to a decision id: 53 bits of a keyed hash.

    >>> uniform("d1", "leeway") == uniform("d1", "leeway") != uniform("d1", "other")
    True
    """
    # The length stops ("ab", "c") and ("a", "bc") from meaning the same.
    message = f"{len(salt)}:{salt}{decision_id}".encode()
    return (int.from_bytes(blake2b(message, digest_size=8).digest(), "big") >> 11) * 2.0**-53


def draw(decision_id: str, salt: str, probabilities: Sequence[float]) -> int:
    """Return the index that is drawn from ``probabilities`` for a decision id.

    The same (id, salt, vector) gives the same index at any time and place, which makes a retry safe and a
    logged decision replayable. An index of probability 0 is never drawn, whatever rounding does to the sum.

    >>> draw("d1", "leeway", [0.0, 1.0, 0.0])
    1
    """
    u = uniform(decision_id, salt)
    cumulative = 0.0
    last = -1
    for index, probability in enumerate(probabilities):
        if probability > 0.0:
            cumulative += probability
            last = index
            if u < cumulative:
                return index
    if last < 0:
        raise ValueError("no probability is positive: there is nothing to draw")
    return last


def vector_problem(vector: Sequence[float], available: Sequence[bool]) -> str:
    """Return why something is no probability vector over the available actions; empty where it is one.

    >>> vector_problem([0.5, 0.5], [True, False])
    'is 0.5 for action 1, which is excluded; give it 0'
    """
    if len(vector) != len(available):
        return f"has {len(vector)} entries for {len(available)} actions; send one for each"
    for index, (p, free) in enumerate(zip(vector, available, strict=True)):
        if not 0.0 <= p <= 1.0:
            return f"is {p} for action {index}; send a number from 0 to 1"
        if p and not free:
            return f"is {p} for action {index}, which is excluded; give it 0"
    total = math.fsum(vector)
    if abs(total - 1.0) > TOLERANCE:
        return f"adds up to {total!r}; send a vector that adds up to 1"
    return ""
