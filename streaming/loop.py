"""A role in a thread of its own, started again for as long as it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.errors import LeewayError
from monitoring.role_metrics import RoleMetrics

logger = logging.getLogger(__name__)

#: How long a role waits when there is nothing to do: what it does by the clock is late by so much at most.
IDLE_S = 0.5
#: Most seconds between two attempts of a role that fails.
MAX_BACKOFF_S = 10.0


class Role(Protocol):
    """A piece of work that goes on for ever in small steps."""

    def step(self, *, timeout_s: float) -> int:
        """Do what there is to do now; return how many records it was.

        Where there is nothing, it may wait up to ``timeout_s`` for the first record: asking again and again costs more.
        """

    def close(self) -> None:
        """Bring what is under way to a safe end."""


@dataclass
class Loop:
    """Makes one role and runs it until told to stop.

    What fails, the making or a step, is tried again after a pause that doubles up to ten seconds: a full disk, a
    damaged file or a broker that is away stops one role, which says so, and not the others.
    """

    name: str
    make: Callable[[], Role]
    stop: threading.Event
    metrics: RoleMetrics

    def run(self) -> None:
        """Step until stopped, then close."""
        role: Role | None = None
        pause = backoff = 0.0
        while not self.stop.wait(pause):
            begun = time.monotonic()
            try:
                if role is None:
                    role = self.make()
                    self.metrics.up.labels(self.name).set(1)
                count = role.step(timeout_s=IDLE_S)
            except Exception as error:
                pause = backoff = self._failed(error, backoff)
                continue
            if backoff:
                logger.info("%s works again", self.name)
                self.metrics.up.labels(self.name).set(1)
            backoff = 0.0
            # Who reads the log has waited there; who does not rests here.
            pause = 0.0 if count else max(begun + IDLE_S - time.monotonic(), 0.0)
        try:
            if role is not None:
                role.close()
        except Exception as error:
            logger.error("%s could not be closed in order: %s", self.name, error)

    def _failed(self, error: Exception, backoff: float) -> float:
        """Tell of a failure, and return for how long to rest."""
        pause = min(max(2 * backoff, 0.2), MAX_BACKOFF_S)
        self.metrics.errors.labels(self.name).inc()
        self.metrics.up.labels(self.name).set(0)
        # An error of ours says all there is to say; any other needs its trace.
        logger.error(
            "%s failed, trying again in %.1f s: %s", self.name, pause, error,
            exc_info=None if isinstance(error, LeewayError) else error,
        )  # fmt: skip
        return pause
