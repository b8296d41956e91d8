"""Where serving records: the embedded log, or a Kafka cluster behind a spool on the local disk."""

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
from streaming.opening import declare, open_log
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


def open_serving_log(config: Config, metrics: ServingMetrics, clock: Callable[[], int]) -> ServingLog:
    """Open the log that the configuration describes; ``LogError`` where a local file cannot be used.

    ``clock`` tells milliseconds since 1970, for the age of what waits.
    """
    if isinstance(config.log, KafkaLogConfig):
        return ClusterServing(config, config.log, metrics, clock)
    return EmbeddedServing(config, metrics)


class EmbeddedServing:
    """Serving on the embedded log. What it does not take is refused: it is the only log there is."""

    answers_unrecorded = False

    def __init__(self, config: Config, metrics: ServingMetrics) -> None:
        self._log = open_log(config, needed={SERVING})
        self.insight: Insight = LogInsight(self._log)
        at_once = config.serving.durability == "memory"
        self.recorder = LogRecorder(self._log, at_once=at_once, on_error=metrics.log_append_errors.inc)

    def recall(self, count: int, remember: Callable[[bytes], None]) -> None:
        """Hand over the last decisions of the log."""
        for value in tail(self._log, DECISIONS, count):
            remember(value)

    def close(self, hurry: threading.Event) -> None:
        """Write what waits, and close."""
        self.recorder.close()
        self._log.close()


class ClusterServing:
    """Serving on Kafka, which may be away: also at the start, and at the end."""

    answers_unrecorded = True

    def __init__(self, config: Config, log: KafkaLogConfig, metrics: ServingMetrics, clock: Callable[[], int]) -> None:
        durability = config.serving.durability
        self._spool = Spool(config.spool_dir, max_bytes=log.spool_max_bytes, fsync=log.fsync)
        self._cluster = KafkaLog(log)
        self._shipping = Shipping(
            self._spool,
            self._cluster,
            lambda: declare(self._cluster, config),
            patience_s=None if durability == "disk" else config.serving.broker_patience / 1_000.0,
            on_shipped=metrics.shipped.inc,
            on_error=metrics.shipping_errors.inc,
        )
        self.recorder = LogRecorder(
            self._shipping,
            Limits(record_bytes=log.max_message_bytes),
            at_once=durability == "memory",
            on_error=metrics.log_append_errors.inc,
        )
        self.insight: Insight = ClusterInsight(self._cluster, self._shipping)
        metrics.spool_records.set_function(lambda: self._spool.waiting)
        metrics.spool_bytes.set_function(self._spool.used_bytes)
        metrics.spool_limit.set(log.spool_max_bytes)
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
        self._spool.close()
        self._cluster.close()


class ClusterInsight:
    """What the admin service shows, without a question to a cluster that is known to be away.

    Each question would hold one of the threads that answer decisions until it is given up.
    """

    def __init__(self, cluster: KafkaLog, shipping: Shipping) -> None:
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


def _age_s(spool: Spool, clock: Callable[[], int]) -> float:
    oldest = spool.oldest_ms()
    return 0.0 if oldest is None else max(clock() - oldest, 0) / 1_000.0
