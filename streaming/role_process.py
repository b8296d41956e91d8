"""A process behind the log: some roles, each in a thread, and what is looked at from outside them."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter

from engine.errors import LogError
from monitoring.exposition import serve_metrics
from monitoring.role_metrics import RoleMetrics
from streaming.config import Config
from streaming.embedded import EmbeddedLog
from streaming.kafka import KafkaLog
from streaming.lag import READ_BY, lag
from streaming.log import Log
from streaming.loop import MAX_BACKOFF_S, Loop, Role
from streaming.opening import attach, declare

logger = logging.getLogger(__name__)

#: What is looked at is asked of the broker: not much more often than somebody wants to know.
LOOK_EVERY_MS = 2_000
EXPIRE_EVERY_MS = 60_000
#: How long roles may take to end: one may be waiting for a broker that is away.
END_S = 5.0
#: Options of glibc's mallopt: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, in bytes (malloc.h).
_KEPT = {-3: 33_554_432, -1: 268_435_456, -2: 16_777_216}


class RoleProcess:
    """Runs roles over one log, and shows how they fare.

    The log may be away at the start: its topics are declared, and the roles begin, when it can be reached.

    Parameters
    ----------
    config
        The configuration.
    makers
        For each role, by its name, what makes it on the log.
    clock
        Milliseconds since 1970.
    registry
        Where metrics are; ``leeway_role_*``, ``leeway_lag_*``, rebalances and aborts are added.
    port
        Where they are served; 0: any free port.

    Attributes
    ----------
    metrics_port : int
        Where they are served.

    Raises
    ------
    ConfigError
        The port cannot be had.
    LogError
        The directory of an embedded log cannot be used.
    """

    def __init__(
        self,
        config: Config,
        makers: Mapping[str, Callable[[Log], Role]],
        clock: Callable[[], int],
        registry: CollectorRegistry,
        port: int,
    ) -> None:
        self._config = config
        self._clock = clock
        self.metrics = RoleMetrics(registry, makers)
        self._metrics_server = serve_metrics(registry, config.metrics.host, port)
        self.metrics_port = self._metrics_server.port
        self._log = attach(config)
        # Who looks on is no member of any group: see `lag`.
        self._onlooker = attach(config)
        self._stop = threading.Event()
        self._roles = {name: _thread(self._loop(name, makers[name]).run, name) for name in makers}
        self._starter = _thread(self._begin, "start")
        self._counted: dict[Counter, int] = {}
        self._looked_ms = self._expired_ms = 0

    def _loop(self, name: str, make: Callable[[Log], Role]) -> Loop:
        return Loop(name, partial(make, self._log), self._stop, self.metrics)

    def start(self) -> None:
        """Start every role as soon as the log can be reached; returns at once."""
        self._starter.start()

    def _begin(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                # Whoever reads a damaged file says so, and goes on when it is mended; the others work meanwhile.
                declare(self._log, self._config, needed=())
            except LogError as error:
                pause = min(max(2 * pause, 0.2), MAX_BACKOFF_S)
                logger.error("no role can begin, trying again in %.1f s: %s", pause, error)
            else:
                for thread in self._roles.values():
                    thread.start()
                return

    def stop(self) -> None:
        """Let every role finish its step and close, in a few seconds.

        A role that takes longer, as one that waits for an answer of a broker that is away, is left to end with the
        process: what it had not committed is done again by the next one.
        """
        self._stop.set()
        end = time.monotonic() + END_S
        begun = [thread for thread in (self._starter, *self._roles.values()) if thread.ident is not None]
        for thread in begun:
            thread.join(max(end - time.monotonic(), 0.0))
        late = [thread.name for thread in begun if thread.is_alive()]
        self._metrics_server.close()
        if late:  # closing what they use would wait for them
            logger.warning("%s did not end in %.0f s; the next start goes on from what is committed", late, END_S)
            return
        self._onlooker.close()
        self._log.close()

    def look_on(self) -> None:
        """Look at the log when it is time, and delete what has outlived retention; raises ``LogError``."""
        now_ms = self._clock()
        if now_ms - self._looked_ms >= LOOK_EVERY_MS:
            self.look(self._onlooker, now_ms)
            self._looked_ms = now_ms
        if isinstance(self._log, EmbeddedLog) and now_ms - self._expired_ms >= EXPIRE_EVERY_MS:  # Kafka does it itself
            while self._log.expire(now_ms):
                pass
            self._expired_ms = now_ms

    def look(self, onlooker: Log, now_ms: int) -> None:
        """Bring lag, rebalances and aborts up to date; raises ``LogError``."""
        for role, topics in READ_BY.items():
            for topic, behind in lag(onlooker, role, topics).items():
                self.metrics.lag_records.labels(role, topic).set(behind.records)
                self.metrics.lag_seconds.labels(role, topic).set(behind.seconds(now_ms))
        if isinstance(self._log, KafkaLog):
            for role in self._roles:
                self.count(self.metrics.rebalances.labels(role), self._log.rebalances(role))
                self.count(self.metrics.aborts.labels(role), self._log.aborts(role))

    def count(self, counter: Counter, total: int) -> None:
        """Bring a counter up to a total that is counted elsewhere."""
        counter.inc(total - self._counted.get(counter, 0))
        self._counted[counter] = total


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=name, daemon=True)  # the process may end while it waits for a broker


class Housekeeper:
    """The role that looks after its process: metrics that are read from elsewhere, and retention."""

    def __init__(self, *chores: Callable[[], None]) -> None:
        self._chores = chores

    def step(self, *, timeout_s: float = 0.0) -> int:
        """Do every chore; it waits for nothing."""
        for chore in self._chores:
            chore()
        return 0

    def close(self) -> None:
        """Nothing is under way."""


def calm_collector() -> None:
    """Let Python's cyclic garbage collector run seldom; for a process that handles records, once it is set up.

    It runs after every 700 new objects and looks for cycles among those that live, which with thousands of records in
    hand takes longer than reading them. Hardly any of ours are in a cycle, and reference counts free the others at
    once. So what exists now is never looked at again, and what comes after a million new
    objects, for a step of the join has a hundred thousand in hand. The price is memory: what is in a cycle, such as an
    error with its trace, stays until then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)


def calm_memory() -> None:
    """Do what :func:`calm_collector` does, and let the C library keep what a step has freed for the next one.

    In its default it gives it back to the system at once, which clears each page again when it is asked for: a tenth of
    the time of a step of the join on librdkafka. The price is memory, some 256 MiB at most. Only glibc can be told so.
    """
    calm_collector()
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option, value in _KEPT.items():
            set_option(option, value)


def run(process: RoleProcess, ready: Callable[[int], None]) -> None:
    """Let a process work until SIGTERM or SIGINT; ``ready`` is told the port of its metrics."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    process.start()
    ready(process.metrics_port)
    calm_memory()
    while not stop.wait(1.0):
        pass
    process.stop()
