"""Matrix products on the thread that asks for them: for a process whose threads answer calls."""

from __future__ import annotations

import os

#: What OpenBLAS, MKL and OpenMP read when they are loaded.
_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def one_thread_each() -> None:
    """Let a call of a numerical library use one thread; what the environment says already holds.

    A library's own threads are one team, for which the calls of all our threads wait in turn, and which spins for its
    next task on the cores that the other calls need. The products of a decision are too small to gain from it: a
    vector of 64 by 64 x 20,000 takes several times as long with two threads on two busy cores as with one.

    Call it before what is loaded late, such as scikit-learn or Faiss: OpenMP knows a limit for the calling thread alone
    but for the one in the environment. Of what is loaded already, OpenBLAS can still be told.
    """
    from threadpoolctl import threadpool_limits

    said = [name for name in _VARIABLES[:2] if name in os.environ]
    for name in _VARIABLES:
        os.environ.setdefault(name, "1")
    if not said:
        threadpool_limits(1, user_api="blas")
