"""Compilation of inner loops: where rows are few, NumPy's calls cost more than the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def read(dtype: Any, ndim: int) -> Any:
    """Return Numba's type of an array that is only read: one that must not be written to is taken too."""
    return numba.types.Array(dtype, ndim, "C", readonly=True)


def compiled(signature: Any, *, nogil: bool = False, fastmath: bool = False, inline: bool = False) -> Callable[[F], F]:
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
    inline
        Put it into each function that calls it.
    """
    settings: dict[str, Any] = {"nogil": nogil, "fastmath": fastmath, "error_model": "numpy"}
    if inline:
        settings["inline"] = "always"

    def compile_(function: F) -> F:
        try:
            return cast(F, numba.njit(signature, cache=True, **settings)(function))
        except (RuntimeError, OSError):  # no place for the cache, or no room in it
            return cast(F, numba.njit(signature, **settings)(function))

    return compile_
