"""Where serving records: the embedded log; or, behind a spool of each process, Kafka or a log that several share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from engine.errors import LogError
from engine.records import Alarm, JoinAccounting
from engine.serving.admin import Insight
from monitoring.metrics import ServingMetrics
from streaming.config import Config, KafkaLogConfig
from streaming.insight import LogInsight, tail
from streaming.kafka import KafkaLog
from streaming.log import Log
from streaming.opening import declare, open_log
from streaming.process_spools import Leftovers, left_spools, spool_bytes, spool_path
from streaming.recorder import Limits, LogRecorder
from streaming.shipping import Shipping
from streaming.spool import Spool
from streaming.topics import DECISIONS, SERVING

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: How long a start waits for the cluster's newest decisions, and an end for what the spool holds to be shipped.
PATIENCE_S = 5.0
_FORGOTTEN = "decisions of an earlier process that only the cluster has are not known: a retry of one decides anew"
#: How long a status request waits for the one before it.
_TURN_S = 1.0


class ServingLog(Protocol):
    """The log as the serving process sees it.

    Attributes
    ----------
    recorder
        Takes decisions and outcomes.
    insight
        What the admin service asks.
    answers_unrecorded
        Whether a decision that it does not take is answered all the same, and flagged.
    """

    recorder: LogRecorder
    insight: Insight
    answers_unrecorded: bool

    def recall(self, count: int, remember: Callable[[bytes], None]) -> None:
        """Hand over about the last ``count`` decisions, serialized, as far as they can be had in good time."""

    def close(self, hurry: threading.Event) -> None:
        """Write what waits, and close; ``hurry`` leaves out what can be done after the next start."""


def open_serving_log(config: Config, metrics: ServingMetrics, clock: Callable[[], int], number: int = 1) -> ServingLog:
    """Open the log that the configuration describes; ``LogError`` where a local file cannot be used.

    ``clock`` tells milliseconds since 1970, for the age of what waits; ``number`` which serving process it is.
    """
    if isinstance(config.log, KafkaLogConfig) or config.serving.processes > 1:
        return SpooledServing(config, metrics, clock, number)
    return EmbeddedServing(config, metrics)


class EmbeddedServing:
    """Serving on the embedded log. What it does not take is refused: it is the only log there is."""

    answers_unrecorded = False

    def __init__(self, config: Config, metrics: ServingMetrics) -> None:
        self._log = open_log(config, needed={SERVING})
        self.insight: Insight = LogInsight(self._log)
        at_once = config.serving.durability == "memory"
        self.recorder = LogRecorder(self._log, at_once=at_once, on_error=metrics.log_append_errors.inc)
        self._leftovers = _leftovers(config, self._log)

    def recall(self, count: int, remember: Callable[[bytes], None]) -> None:
        """Hand over the last decisions of the log."""
        for value in tail(self._log, DECISIONS, count):
            remember(value)

    def close(self, hurry: threading.Event) -> None:
        """Write what waits, and close."""
        self.recorder.close()
        self._leftovers.close()
        self._log.close()


class SpooledServing:
    """Serving on Kafka, which may be away: also at the start, and at the end. Or one process of several on a log.

    The embedded log takes one writer at a time, and no decision waits for the turn of another process: each has a spool
    to itself. What that does not take is refused, as the log's refusal would be.
    """

    def __init__(self, config: Config, metrics: ServingMetrics, clock: Callable[[], int], number: int) -> None:
        log = config.log
        on_kafka = isinstance(log, KafkaLogConfig)
        self.answers_unrecorded = on_kafka
        self._cluster: Log = KafkaLog(log) if isinstance(log, KafkaLogConfig) else open_log(config, needed={SERVING})
        durability = config.serving.durability
        self._spool = Spool(spool_path(config, number), max_bytes=spool_bytes(config), fsync=log.fsync)
        self._shipping = Shipping(
            self._spool,
            self._cluster,
            lambda: declare(self._cluster, config, None if on_kafka else {SERVING}),
            patience_s=None if durability == "disk" else config.serving.broker_patience / 1_000.0,
            on_shipped=metrics.shipped.inc,
            on_error=metrics.shipping_errors.inc,
        )
        self.recorder = LogRecorder(
            self._shipping,
            Limits(record_bytes=log.max_message_bytes) if isinstance(log, KafkaLogConfig) else Limits(),
            at_once=durability == "memory",
            on_error=metrics.log_append_errors.inc,
        )
        self.insight: Insight = ClusterInsight(self._cluster, self._shipping)
        self._leftovers = _leftovers(config, self._cluster) if number == 1 else None
        metrics.spool_records.set_function(lambda: self._spool.waiting)
        metrics.spool_bytes.set_function(self._spool.used_bytes)
        metrics.spool_limit.set(spool_bytes(config))
        metrics.spool_age.set_function(lambda: _age_s(self._spool, clock))

    def recall(self, count: int, remember: Callable[[bytes], None]) -> None:
        """Hand over the last decisions of the spool, and those of the cluster if it can be reached in good time.

        If there are many, a thread goes on with that; one that was decided meanwhile is known already.
        """
        for value in self._spool.newest(DECISIONS, count):
            remember(value)

        def ask() -> None:
            try:
                for value in tail(self._cluster, DECISIONS, count):
                    remember(value)
            except LogError as error:
                logger.warning("%s: %s", _FORGOTTEN, error)

        end = time.monotonic() + PATIENCE_S
        if not self._shipping.reached(PATIENCE_S):
            reason = self._shipping.trouble or f"it has not answered within {PATIENCE_S:g} s"
            logger.warning("%s: %s", _FORGOTTEN, reason)
            return
        asking = threading.Thread(target=ask, name="recall", daemon=True)
        asking.start()
        asking.join(end - time.monotonic())

    def close(self, hurry: threading.Event) -> None:
        """Write what waits, ship for a while, and close; the rest is shipped after the next start."""
        self.recorder.close()
        self._shipping.close(PATIENCE_S, hurry)
        if self._leftovers is not None:
            self._leftovers.close()
        self._spool.close()
        self._cluster.close()


class ClusterInsight:
    """What the admin service shows, without a question to a cluster that is known to be away.

    Each question would hold one of the threads that answer decisions until it is given up.
    """

    def __init__(self, cluster: Log, shipping: Shipping) -> None:
        self._insight = LogInsight(cluster)
        self._shipping = shipping
        self._asking = threading.Lock()

    def accounting(self) -> Mapping[str, JoinAccounting]:
        """Return the book of the join; raises ``LogError`` while the cluster is away."""
        return self._ask(self._insight.accounting)

    def alarms(self, point: str) -> Sequence[Alarm]:
        """Return the latest alarms; raises ``LogError`` while the cluster is away."""
        return self._ask(lambda: self._insight.alarms(point))

    def _ask(self, question: Callable[[], T]) -> T:
        if self._shipping.trouble is not None:
            raise LogError(self._shipping.trouble)
        if not self._asking.acquire(timeout=_TURN_S):
            raise LogError("another status request still waits for Kafka; ask again")
        try:
            return question()
        finally:
            self._asking.release()


def _leftovers(config: Config, log: Log) -> Leftovers:
    needed = None if isinstance(config.log, KafkaLogConfig) else {SERVING}
    return Leftovers(
        left_spools(config),
        log,
        lambda: declare(log, config, needed),
        max_bytes=spool_bytes(config),
        fsync=config.log.fsync,
    )


def _age_s(spool: Spool, clock: Callable[[], int]) -> float:
    oldest = spool.oldest_ms()
    return 0.0 if oldest is None else max(clock() - oldest, 0) / 1_000.0
