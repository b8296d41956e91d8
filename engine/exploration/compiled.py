"""Compilation of the inner loops of explorations: at K = 10 NumPy's calls cost more than the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

#: Stands for numbers beyond float64, so that an action whose gap is one keeps its support.
GREATEST = 1.7976931348623157e308


def compiled(signature: str, *, nogil: bool = False, fastmath: bool = False) -> Callable[[F], F]:
    """Compile a function for one signature when its module is imported, so that no decision ever waits for it.

    The result is kept on disk (``NUMBA_CACHE_DIR`` says where, else beside the module); where nothing can be written,
    as in a read-only container without a home, each process compiles again. Division follows IEEE 754.

    Parameters
    ----------
    signature
        Types of result and arguments, as Numba writes them.
    nogil
        Let other threads run meanwhile: for what takes longer than letting them.
    fastmath
        Sums may be taken in another order than written: for those that are checked afterwards.
    """

    def compile_(function: F) -> F:
        settings: dict[str, Any] = {"nogil": nogil, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return cast(F, numba.njit(signature, cache=True, **settings)(function))
        except RuntimeError:  # no place for the cache
            return cast(F, numba.njit(signature, **settings)(function))

    return compile_
