"""The draw of an action: in one place, and a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b


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
