"""Outcomes reported in the background: the caller waits for nothing, and hears of what could not be delivered."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.api.leeway.v1.service_pb2 import ReportRequest
from engine.client.asynchronous import AsyncClient
from engine.client.blocking import LeewayClient
from engine.client.courier import Answers, AsyncCourier, Courier
from engine.client.delivery import Delivery
from engine.client.messages import Refused, report_request
from engine.client.outbox import Outbox

logger = logging.getLogger(__name__)

#: An outcome that will never be in the log, and why.
OnUndelivered = Callable[[ReportRequest, str], None]
#: Deadline of the delivery of one batch; what it does not take is sent again.
_SENDING_S = 5.0


def log_undelivered(request: ReportRequest, reason: str) -> None:
    """Say in the log of the process that an outcome is lost."""
    logger.error("outcome %s of decision %s is lost: %s", request.outcome_id, request.decision_id, reason)


class _Reports:
    """What both reporters share: the outbox and its limits."""

    def __init__(self, most: int, batch: int, path: Path | None, on_undelivered: OnUndelivered) -> None:
        self._outbox = Outbox(path, most)
        self._on_undelivered = on_undelivered
        self._delivery = Delivery(self._outbox, batch, self._undelivered, random.random)

    def _undelivered(self, data: bytes, reason: str) -> None:
        self._on_undelivered(ReportRequest.FromString(data), reason)

    def _take(
        self,
        decision_id: str,
        value: float,
        point: str,
        outcome_id: str | None,
        time_ms: int,
        place: tuple[str, str, int | None],
    ) -> str:
        """Take an outcome with the time of its report: it may be delivered much later."""
        task, item, slot = place
        at_ms = time_ms or time.time_ns() // 1_000_000
        request = report_request(
            decision_id, value, point=point, outcome_id=outcome_id, time_ms=at_ms, task=task, item=item, slot=slot
        )
        self._outbox.add(request.outcome_id, request.SerializeToString())
        return request.outcome_id

    @property
    def waiting(self) -> int:
        """Outcomes that wait to be delivered."""
        return len(self._outbox)

    def _end(self) -> int:
        """Say what is left, and return how many that are; on disk they stay for the next reporter."""
        left = len(self._outbox)
        if left and self._outbox.path is None:
            reason = f"it was not delivered before the reporter was closed; {self._delivery.trouble or 'time was up'}"
            for _, data in self._outbox.oldest(left, 2**63):
                self._undelivered(data, reason)
        elif left:
            logger.warning("%d outcomes are not delivered; they are kept in %s", left, self._outbox.path)
        self._outbox.close()
        return left


class Reporter(_Reports):
    """Reports outcomes by a client in the background, many at a time. Safe for threads.

    Parameters
    ----------
    client
        Delivers; it is not closed with the reporter.
    most
        How many outcomes may wait; beyond it ``report`` raises ``OutboxFull``.
    batch
        How many are sent at once.
    linger_s
        How long a batch that is not full waits for more.
    path
        File that keeps outcomes over the end of the process; ``None``: in memory.
    on_undelivered
        Is told, by the reporter's thread, of each outcome that will never be delivered, and why: it was refused, or
        the reporter was closed before. Default: an error in the log of the process.
    """

    def __init__(
        self,
        client: LeewayClient,
        *,
        most: int = 100_000,
        batch: int = 500,
        linger_s: float = 0.1,
        path: Path | None = None,
        on_undelivered: OnUndelivered = log_undelivered,
    ) -> None:
        super().__init__(most, batch, path, on_undelivered)
        self._client = client
        self._courier = Courier(self._delivery, self._send, linger_s)

    def report(
        self,
        decision_id: str,
        value: float,
        *,
        point: str = "",
        outcome_id: str | None = None,
        time_ms: int = 0,
        task: str = "",
        item: str = "",
        slot: int | None = None,
    ) -> str:
        """Take an outcome and return its id at once; the parameters are those of ``LeewayClient.report``."""
        taken = self._take(decision_id, value, point, outcome_id, time_ms, (task, item, slot))
        self._courier.wake()
        return taken

    def _send(self, batch: Sequence[bytes]) -> Answers:
        requests = [ReportRequest.FromString(data) for data in batch]
        return _answers(self._client.report_batch(requests, deadline_s=_SENDING_S))

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Deliver what waits now; return whether nothing waits any more."""
        return self._courier.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> int:
        """Deliver what waits, as far as that goes in time, and return how many outcomes are left."""
        self._courier.close(timeout_s)
        return self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncReporter(_Reports):
    """The same for asyncio; make it where the event loop runs. ``report`` is no coroutine: it waits for nothing."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        most: int = 100_000,
        batch: int = 500,
        linger_s: float = 0.1,
        path: Path | None = None,
        on_undelivered: OnUndelivered = log_undelivered,
    ) -> None:
        super().__init__(most, batch, path, on_undelivered)
        self._client = client
        self._courier = AsyncCourier(self._delivery, self._send, linger_s)

    def report(
        self,
        decision_id: str,
        value: float,
        *,
        point: str = "",
        outcome_id: str | None = None,
        time_ms: int = 0,
        task: str = "",
        item: str = "",
        slot: int | None = None,
    ) -> str:
        """Take an outcome and return its id at once; the parameters are those of ``LeewayClient.report``."""
        taken = self._take(decision_id, value, point, outcome_id, time_ms, (task, item, slot))
        self._courier.wake()
        return taken

    async def _send(self, batch: Sequence[bytes]) -> Answers:
        requests = [ReportRequest.FromString(data) for data in batch]
        return _answers(await self._client.report_batch(requests, deadline_s=_SENDING_S))

    async def flush(self, timeout_s: float = 10.0) -> bool:
        """Deliver what waits now; return whether nothing waits any more."""
        return await self._courier.flush(timeout_s)

    async def close(self, timeout_s: float = 10.0) -> int:
        """Deliver what waits, as far as that goes in time, and return how many outcomes are left."""
        await self._courier.close(timeout_s)
        return self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _answers(answers: Sequence[str | Refused]) -> Answers:
    return [answer if isinstance(answer, Refused) else None for answer in answers]
