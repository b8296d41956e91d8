"""Shipping: what serving records goes to the cluster, by way of the spool whenever the cluster is slow or away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from streaming.log import Log, Message, Record
from streaming.spool import Spool
from streaming.topics import DECISIONS

logger = logging.getLogger(__name__)

#: Records of one step.
BATCH = 500
#: How long records gather before the next step: a step has a price, and the join waits for seconds anyway.
LINGER_S = 0.05
#: Between two attempts while the cluster is away.
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Records for the cluster that have not been in the spool, and their fate."""

    messages: Sequence[Message]
    arrived: Future[None] = field(default_factory=Future)


class Shipping:
    """The one thread of serving that talks to the cluster; nobody ever waits for it longer than a patience.

    Records of a key arrive in the order in which they were appended, and an outcome after its decision: while any wait
    in the spool, later ones go behind them. A record may arrive twice, as when the process ends, or an answer is lost,
    between its arrival and the note of it; the join knows decisions by their id and outcomes by theirs, and takes each
    once.

    Parameters
    ----------
    spool
        Where records wait. One thread appends through this object.
    cluster
        Where they go.
    declare
        Makes or checks the cluster's topics, and raises ``LogError`` where they are not as configured or the cluster
        is away. Nothing is shipped before it has succeeded, and it is asked again after every trouble.
    patience_s
        How long ``append`` waits for the cluster itself; ``None``: not at all, everything goes by way of the spool.
    on_shipped
        Is told how many records have arrived.
    on_error
        Is told of each attempt that failed.
    """

    def __init__(
        self,
        spool: Spool,
        cluster: Log,
        declare: Callable[[], None],
        *,
        patience_s: float | None = None,
        on_shipped: Callable[[int], None] = lambda _: None,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._cluster = cluster
        self._declare = declare
        self._patience_s = patience_s
        self._on_shipped = on_shipped
        self._on_error = on_error
        self._condition = threading.Condition()
        self._parcel: _Parcel | None = None
        self._free = False
        self._ended = False
        self._declared = threading.Event()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="shipping", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the last attempt to reach the cluster failed; ``None``: it did not."""
        return self._trouble

    def reached(self, timeout_s: float) -> bool:
        """Wait until the cluster has been reached and its topics are as declared; false if that takes too long."""
        return self._declared.wait(timeout_s)

    def append(self, messages: Sequence[Message]) -> None:
        """Take records; returns when the spool has them, or the cluster.

        Raises ``LogError`` when neither took them, though the cluster may have some if it was only slow.
        """
        if self._patience_s is None or not self._delivered(messages, self._patience_s):
            self._spool.append(messages)
            with self._condition:
                self._condition.notify()

    def _delivered(self, messages: Sequence[Message], patience_s: float) -> bool:
        """Whether the cluster took the records in good time, past an empty spool."""
        parcel = _Parcel(messages)
        with self._condition:
            # Only this thread fills the spool, so it stays empty meanwhile.
            if self._spool.waiting or not self._free:
                return False
            self._free, self._parcel = False, parcel
            self._condition.notify()
        try:
            parcel.arrived.result(patience_s)
        except Exception:  # the thread says what it was
            return False
        return True

    def close(self, patience_s: float, hurry: threading.Event) -> None:
        """Ship what waits for so long at most, or until ``hurry``; the rest is shipped after the next start."""
        end = time.monotonic() + patience_s
        while self._spool.waiting and self._trouble is None and time.monotonic() < end and not hurry.wait(LINGER_S):
            pass
        with self._condition:
            self._ended = True
            self._condition.notify()
        self._thread.join(RETRY_S)
        if self._spool.waiting:
            logger.warning("%d records stay in the spool; they are shipped after the next start", self._spool.waiting)

    def _run(self) -> None:
        while not self._ended:
            parcel, self._parcel = self._parcel, None
            try:
                shipped = self._step(parcel)
            except Exception as error:  # also a surprise must not end the thread, or let anyone wait
                self._fail(error, parcel)
                self._pause(RETRY_S, until_spooled=False)
                continue
            if self._trouble is not None:
                self._trouble = None
                logger.info("the cluster takes records again; %d wait in the spool", self._spool.waiting)
            if shipped < BATCH:
                self._pause(LINGER_S if shipped else RETRY_S, until_spooled=not shipped)

    def _step(self, parcel: _Parcel | None) -> int:
        """Bring one parcel, or some records of the spool, to the cluster; return how many came from the spool."""
        if not self._declared.is_set():
            self._declare()
            self._declared.set()
        if parcel is not None:
            self._cluster.append(parcel.messages)
            self._on_shipped(len(parcel.messages))
            parcel.arrived.set_result(None)
            return 0
        records = self._spool.take(BATCH)
        if not records:
            self._spool.tidy()
            return 0
        try:
            # Outcomes when their decisions have arrived: of one append a part may arrive long before the rest, and the
            # join can wait for the outcomes of a decision far better than for the decision of an outcome.
            for of_decisions in (True, False):
                messages = [_message(record) for record in records if (record.topic == DECISIONS) == of_decisions]
                if messages:
                    self._cluster.append(messages)
        except BaseException:
            self._spool.put_back()
            raise
        self._spool.shipped()
        self._on_shipped(len(records))
        return len(records)

    def _fail(self, error: Exception, parcel: _Parcel | None) -> None:
        self._declared.clear()  # the cluster that comes back may be another one
        self._on_error()
        if self._trouble != str(error) and not self._ended:
            logger.error("nothing is shipped, records wait in the spool: %s", error)
        self._trouble = str(error)
        if parcel is not None:
            parcel.arrived.set_exception(error)

    def _pause(self, seconds: float, *, until_spooled: bool) -> None:
        def wanted() -> bool:
            return self._ended or self._parcel is not None or (until_spooled and self._spool.waiting > 0)

        with self._condition:
            self._free = True
            self._condition.wait_for(wanted, seconds)
            self._free = False


def _message(record: Record) -> Message:
    # By its key, not by its partition in the spool: the cluster has others.
    return Message(record.topic, record.key, record.value, record.timestamp_ms, record.headers)
