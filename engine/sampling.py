"""The draw of an action: in one place, and a pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

#: How far the sum of a vector may be from 1: the rounding of thousands of additions.
TOLERANCE = 1e-9


def uniform(decision_id: str, salt: str) -> float:
    """Return the number in [0, 1) that belongs to a decision id: 53 bits of a keyed hash.

    >>> uniform("d1", "leeway") == uniform("d1", "leeway") != uniform("d1", "other")
    True
    """
    digest = blake2b(_salted(salt) + decision_id.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def _salted(salt: str) -> bytes:
    """Return what stands before an id; the length stops ("ab", "c") and ("a", "bc") from meaning the same."""
    return f"{len(salt)}:{salt}".encode()


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


def draw_each(ids: Sequence[str], salt: str, vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return what :func:`draw` returns for each of several decision ids.

    Parameters
    ----------
    ids, salt
        One or more decision ids, and what they are hashed with.
    vectors : ndarray of float64, shape (n_ids, n_actions)
        The probability vector of each.

    Examples
    --------
    >>> draw_each(["d1", "d2"], "leeway", np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    before = blake2b(_salted(salt), digest_size=8)
    hashes = []
    for decision_id in ids:
        hashed = before.copy()
        hashed.update(decision_id.encode())
        hashes.append(hashed.digest())
    u = (np.frombuffer(b"".join(hashes), ">u8") >> np.uint64(11)) * 2.0**-53
    # Sums of one vector are taken from left to right, as in draw; what has no probability adds nothing to them.
    reached = np.cumsum(vectors, axis=1) > u[:, np.newaxis]
    chosen: NDArray[np.int64] = reached.argmax(axis=1)
    for row in np.flatnonzero(~reached[:, -1]).tolist():  # rounding took something from the sum
        chosen[row] = draw(ids[row], salt, vectors[row].tolist())
    return chosen


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
