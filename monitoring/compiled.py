"""Numba behind one typed name: inner loops are compiled once, and their machine code is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function compiled to machine code at its first call.

    Floating point stays as written (no ``fastmath``), so that the interpreter computes the same bits: with
    ``NUMBA_DISABLE_JIT=1`` in the environment it does. The machine code is cached beside the module, or below
    ``NUMBA_CACHE_DIR``; where neither can be written, as in a read-only container without a home, it is compiled
    again in each process.

    Functions that call each other belong in one file: the cache looks at the date of that file alone.
    """
    try:
        return cast(Callable[P, R], numba.njit(function, cache=True))
    except RuntimeError:  # no place for the cache
        return cast(Callable[P, R], numba.njit(function))
