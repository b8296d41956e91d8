"""The file of those who may call, read again when it changes, beside the calls and not in them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from engine.errors import ConfigError
from engine.serving.changed_file import mark
from engine.serving.tokens import Access, read_access

logger = logging.getLogger(__name__)


class AccessWatcher:
    """Keeps the latest good reading of the file.

    A file that cannot be used leaves the one before it in force, and is said once; so does one that is gone. That way
    a typing error locks nobody out, and lets nobody in.

    Parameters
    ----------
    path
        The file.
    interval_s
        Seconds between looks.

    Raises
    ------
    ConfigError
        The file cannot be used at the start.
    """

    def __init__(self, path: Path, interval_s: float) -> None:
        self._path = path
        self._interval_s = interval_s
        self._seen = mark(path)
        self.access = read_access(path)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-watcher", daemon=True)

    def current(self) -> Access:
        """Return who may call now."""
        return self.access

    def start(self) -> None:
        """Look in the background from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Read the file if it has changed since the last look."""
        now = mark(self._path)
        if now == self._seen:
            return
        self._seen = now
        try:
            self.access = read_access(self._path)
        except ConfigError as error:
            logger.error("serving.access_file: %s; what stood there before is still in force", error)
        else:
            logger.info("serving.access_file: %s was read again, %d may call", self._path, len(self.access.callers))

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.look()
