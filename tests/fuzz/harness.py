"""What a harness is, and how its inputs are mutated."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Inputs that once did harm, or nearly; a folder for each harness.
CORPUS = Path(__file__).parent / "corpus"
_NUMBER = re.compile(rb"\d+")
_WORDS = (
    b"0",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"NaN",
    b"null",
    b'""',
    b"[]",
    b"{}",
    b"\xff",
    b"\0",
    b"\xed\xa0\x80",
)


@dataclass(frozen=True)
class Harness:
    """One reader of bytes from outside.

    Attributes
    ----------
    name
        Names its folder of the corpus.
    seeds
        Returns inputs that are good: made by what writes this form.
    run
        Reads an input; it may write files into the folder that it is given.
    refused
        What may come out, for these say what is wrong.
    mutations
        How many of them the normal tests try.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes, Path], object]
    refused: tuple[type[Exception], ...] = ()
    mutations: int = 200

    def corpus(self) -> list[bytes]:
        """Return the good inputs, and those of its folder."""
        return [*self.seeds(), *(path.read_bytes() for path in sorted((CORPUS / self.name).glob("*")))]

    def refuses(self, data: bytes, folder: Path) -> bool:
        """Read an input; return whether it was refused. Anything else that comes out is a defect."""
        try:
            self.run(data, folder)
        except self.refused:
            return True
        return False


def mutations(corpus: Sequence[bytes], count: int, seed: str) -> Iterator[bytes]:
    """Yield mutated inputs, the same ones for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(corpus)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = mutated(data, rng.choice(corpus), rng)
        yield data


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return an input with one change."""
    size = len(data)
    start = rng.randrange(size + 1)
    end = min(size, start + rng.choice((1, 2, 4, 8, 64, 512)))
    match rng.randrange(9):
        case 0:  # a bit
            return (
                data[:start]
                + bytes(byte ^ 1 << rng.randrange(8) for byte in data[start : start + 1])
                + data[start + 1 :]
            )
        case 1:
            return data[:start] + rng.randbytes(end - start) + data[end:]
        case 2:
            return data[:start] + data[end:]
        case 3:
            return data[:start]
        case 4:  # twice
            return data[:end] + data[start:]
        case 5:  # a number of a header
            value = rng.choice((0, 1, 0x7F, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
            packed = struct.pack("<Q", value)[: rng.choice((1, 2, 4, 8))]
            return data[:start] + packed + data[start + len(packed) :]
        case 6:
            return data[:start] + rng.choice(_WORDS) + data[end:]
        case 7:  # a number of a text
            found = list(_NUMBER.finditer(data))
            if not found:
                return data[:start]
            where = rng.choice(found)
            return data[: where.start()] + rng.choice(_WORDS) + data[where.end() :]
        case _:
            cut = rng.randrange(len(other) + 1)
            return data[:start] + other[cut:]
