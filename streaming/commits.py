"""The transactions of a role that goes on while one of them is under way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Commits:
    """Commits one transaction after the other, each in a thread of its own while the next one is prepared.

    At most one is under way, and the next begins only when it is known to have succeeded.

    Parameters
    ----------
    overlap
        False: each is over when :meth:`begin` returns. So it must be where the log does not refuse the offsets of
        somebody who has lost partitions in between (:attr:`streaming.log.Log.fences`).

    Examples
    --------
    >>> commits, committed = Commits(overlap=True), []
    >>> commits.begin(lambda: committed.append("the first"))
    >>> commits.begin(lambda: committed.append("the second"))
    >>> commits.finish()
    >>> committed
    ['the first', 'the second']
    """

    def __init__(self, *, overlap: bool) -> None:
        self._overlap = overlap
        self._last: _UnderWay | None = None

    def begin(self, commit: Callable[[], None]) -> None:
        """Commit, when the last commit has succeeded; raises its error where it has not, and commits nothing then."""
        self.finish()
        if self._overlap:
            self._last = _UnderWay(commit)
            self._last.start()
        else:
            commit()

    def finish(self) -> None:
        """Wait for what is under way; raises its error."""
        if self._last is not None:
            self._last.join()
            error, self._last = self._last.error, None
            if error is not None:
                raise error

    def abandon(self) -> None:
        """Wait for what is under way, where its owner begins again from what is committed in any case."""
        try:
            self.finish()
        except Exception as error:
            logger.warning("a commit that was under way has failed too: %s", error)


class _UnderWay(threading.Thread):
    """A commit; a process that ends does not wait for it."""

    def __init__(self, commit: Callable[[], None]) -> None:
        super().__init__(name="commit", daemon=True)
        self._commit = commit
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._commit()
        except BaseException as error:  # its owner raises it
            self.error = error
