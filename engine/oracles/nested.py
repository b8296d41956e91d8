"""Arrays of learners and oracles that consist of others: each part's under a prefix, its kind among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.oracles.base import Arrays


class _Part(Protocol):
    @property
    def kind(self) -> str: ...

    def arrays(self) -> Arrays: ...


P = TypeVar("P", covariant=True)


class _Kind(Protocol[P]):
    def from_arrays(self, arrays: Arrays) -> P: ...


def text(value: str) -> NDArray[np.uint8]:
    """Return a text as an array of bytes."""
    return np.frombuffer(value.encode(), dtype=np.uint8)


def read_text(array: NDArray[np.generic]) -> str:
    """Return the text of an array of bytes; raises ``ValueError``."""
    data = np.asarray(array)
    if data.ndim != 1 or data.dtype != np.uint8:
        raise ValueError(f"a text must be an array of bytes, not {data.dtype} of shape {data.shape}")
    return data.tobytes().decode()


def flat(parts: Sequence[_Part]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of several parts as one mapping."""
    arrays: dict[str, NDArray[np.generic]] = {"parts": np.array([len(parts)])}
    for i, part in enumerate(parts):
        arrays[f"{i}.kind"] = text(part.kind)
        arrays |= {f"{i}.{key}": np.asarray(array) for key, array in part.arrays().items()}
    return arrays


def parts_of(arrays: Arrays, kinds: Mapping[str, _Kind[P]]) -> list[P]:
    """Return the parts; raises ``KeyError`` where one is missing and ``ValueError`` where one is damaged."""
    (count,) = integers(arrays["parts"], 1)
    if not 1 <= count <= 10_000:
        raise ValueError(f"parts must be a number from 1 to 10,000, not {count}")
    parts = []
    for i in range(count):
        kind = read_text(arrays[f"{i}.kind"])
        if kind not in kinds:
            raise ValueError(f"part {i} is of kind {kind!r}, which is none of {', '.join(kinds)}")
        mine = {key.removeprefix(f"{i}."): array for key, array in arrays.items() if key.startswith(f"{i}.")}
        parts.append(kinds[kind].from_arrays(mine))
    return parts


def integers(array: NDArray[np.generic], count: int) -> list[int]:
    """Return so many numbers that are not negative; raises ``ValueError``."""
    numbers = np.asarray(array)
    if numbers.shape != (count,) or numbers.dtype.kind != "i" or (count and numbers.min() < 0):
        raise ValueError(f"{numbers} must be {count} integers, not negative")
    return [int(number) for number in numbers]
