"""Each of several serving processes on cores of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

logger = logging.getLogger(__name__)


def part(cores: Sequence[int], number: int, processes: int) -> Sequence[int]:
    """Return the cores of one of several processes: neighbours, as many as the others have or one more.

    All, where there are fewer than processes.

    >>> [part([0, 1, 2, 3, 4], number, 2) for number in (1, 2)], part([0], 2, 2)
    ([[0, 1], [2, 3, 4]], [0])
    """
    if len(cores) < processes:
        return cores
    return cores[(number - 1) * len(cores) // processes : number * len(cores) // processes]


def keep_to_own_cores(number: int, processes: int) -> None:
    """Keep this process, and threads that it starts from now on, to its part of the cores that it may use.

    Moved from core to core, a process finds its memory in another one's cache: with a core for each, two processes
    answered a tenth to a third more calls (ADR 15). Does nothing where the system cannot.
    """
    if processes < 2 or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, part(sorted(os.sched_getaffinity(0)), number, processes))
    except OSError as error:
        logger.warning("serving process %d has no cores of its own, and goes on without: %s", number, error)
