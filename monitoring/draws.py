"""Random numbers that are a function of the decision id: a replay of the log draws the same."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from monitoring.detector import FloatArray

Seeds = NDArray[np.uint64]


def seed(decision_id: str) -> int:
    """Return 64 bits that are a function of the id, and independent of the number that drew its action.

    >>> seed("a") == seed("a") != seed("b")
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{decision_id}monitor".encode(), digest_size=8).digest(), "little")


def seeds(decision_ids: Iterable[str]) -> Seeds:
    """Return ``seed`` of each."""
    return np.fromiter(map(seed, decision_ids), np.uint64)


def uniforms(numbers: Seeds, purpose: str) -> FloatArray:
    """Return a number in [0, 1) for each seed; those of two purposes are independent.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) on seed and purpose.

    >>> a = uniforms(seeds(["x", "y"]), "one")
    >>> bool((a == uniforms(seeds(["x", "y"]), "one")).all() and (a != uniforms(seeds(["x", "y"]), "two")).all())
    True
    """
    salt = zlib.crc32(purpose.encode()) * 0x9E3779B97F4A7C15 % 2**64
    with np.errstate(over="ignore"):
        z = (numbers ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return to_unit(z)


def to_unit(numbers: Seeds) -> FloatArray:
    """Return 64-bit numbers as numbers in [0, 1)."""
    result: FloatArray = (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result
