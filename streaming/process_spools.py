"""The spools of serving: where each process has its own, and what becomes of one whose process is no more."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import LogError
from streaming.config import Config, EmbeddedLogConfig, KafkaLogConfig
from streaming.log import Log
from streaming.shipping import Shipping
from streaming.spool import Spool

logger = logging.getLogger(__name__)

#: How often it is looked whether a spool that was left is empty.
LOOK_S = 0.2
#: Of the embedded log, which has no setting for it: as much as for a cluster.
_EMBEDDED_BYTES: int = KafkaLogConfig.model_fields["spool_max_bytes"].default


def spool_path(config: Config, number: int) -> Path:
    """Return where the spool of a serving process lies; processes are counted from 1.

    The names are the same after every restart, whatever the number of processes. On Kafka that of the first process is
    the one that a process alone has; on the embedded log a process alone has none, and writes to the log itself.
    """
    if isinstance(config.log, EmbeddedLogConfig):
        return config.log_dir / f"serving-{number}"
    return config.spool_dir if number == 1 else config.spool_dir.with_name(f"{config.spool_dir.name}-{number}")


def spool_bytes(config: Config) -> int:
    """Return how many bytes of the disk each spool may use."""
    return config.log.spool_max_bytes if isinstance(config.log, KafkaLogConfig) else _EMBEDDED_BYTES


def spools(config: Config) -> dict[int, Path]:
    """Return the spools that lie on the disk, by the number of their process."""
    some = spool_path(config, 2)
    name = re.compile(re.escape(some.name.removesuffix("2")) + r"([1-9]\d*)")
    found = {int(match[1]): path for path in some.parent.glob("*") if (match := name.fullmatch(path.name))}
    if spool_path(config, 1).exists():
        found[1] = spool_path(config, 1)
    return dict(sorted(found.items()))


def left_spools(config: Config) -> list[Path]:
    """Return the spools that no process of this configuration uses: there were more processes before."""
    writes_itself = config.serving.processes == 1 and isinstance(config.log, EmbeddedLogConfig)
    used = 0 if writes_itself else config.serving.processes
    return [path for number, path in spools(config).items() if number > used]


class Leftovers:
    """Ships what processes have left that are no more, in the background, and removes their spools when they are empty.

    A spool that cannot be opened is reported and left where it is.

    Parameters
    ----------
    left
        The spools; nobody else uses them.
    log
        Where their records go.
    declare
        As :class:`streaming.shipping.Shipping` wants it.
    max_bytes, fsync
        Of each spool.
    """

    def __init__(
        self, left: Sequence[Path], log: Log, declare: Callable[[], None], *, max_bytes: int, fsync: bool
    ) -> None:
        self._left = left
        self._log = log
        self._declare = declare
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leftovers", daemon=True)
        if left:
            self._thread.start()

    def close(self) -> None:
        """End; what is left is shipped after the next start."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        for path in self._left:
            if self._ended.is_set():
                return
            try:
                self._empty(path)
            except (LogError, OSError) as error:
                logger.error("%s was left by a serving process that is no more, and stays: %s", path, error)

    def _empty(self, path: Path) -> None:
        spool = Spool(path, max_bytes=self._max_bytes, fsync=self._fsync)
        waiting = spool.waiting
        shipping = Shipping(spool, self._log, self._declare)
        while spool.waiting and not self._ended.wait(LOOK_S):
            pass
        shipping.close(0.0, self._ended)
        empty = not spool.waiting
        spool.close()
        if empty:
            shutil.rmtree(path)
            logger.info("%s was left by a serving process that is no more: %d records shipped", path, waiting)
