"""Work that threads do ahead of its use: Arrow and NumPy let go of the interpreter, so that all cores work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    pool: Executor, work: Callable[[_Item], _Result], items: Iterable[_Item], depth: int = 3
) -> Iterator[_Result]:
    """Yield what the work gives for each item, in their order.

    An item is asked for in the thread of the caller, and only when there is room for its result.

    Parameters
    ----------
    pool
        Its threads do the work.
    work
        Called with each item; what it raises is raised here.
    items
        What there is to do.
    depth
        Most results, done or under way, that wait for the caller.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(ahead(pool, abs, [-1, -2, -3]))
    [1, 2, 3]
    """
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.cancel()
