"""The client for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.channel import open_async_channel
from engine.client.connection import options_of, target_of
from engine.client.courier import Answers, AsyncCourier
from engine.client.delivery import Delivery
from engine.client.fallback import (
    CLOSING_S,
    HAND_IN_LINGER_S,
    HANDED_IN,
    Fallback,
    LocalDecisions,
    check_vector,
    no_vector,
    record_request,
    refused_decision,
    taken,
)
from engine.client.held_back import throttled_async
from engine.client.messages import (
    Candidate,
    Choice,
    Decided,
    Plain,
    Recommended,
    Refused,
    activate_request,
    decide_request,
    decided,
    decided_items,
    recommend_request,
    recommended,
    report_request,
    reported_items,
)
from engine.client.retries import Attempts, Patience, judged
from engine.client.throttle import Throttle

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
A = TypeVar("A")


class AsyncClient:
    """A connection to one or several Leeway servers, for one event loop; make it where that runs.

    Parameters and methods are those of :class:`LeewayClient`, as coroutines.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout_s: float = 2.0,
        retry_s: float = 10.0,
        deadline_s: float | None = None,
        fallback: Fallback | None = None,
        channel: grpc.aio.Channel | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        channels: int = 1,
        throttle: bool = True,
    ) -> None:
        self._patience = Patience(timeout_s, retry_s, deadline_s)
        if channel is not None and channels > 1:
            raise ValueError("a channel is given, and channels of the client's own are asked for; choose one")
        self._channels = [channel] if channel is not None else []
        while len(self._channels) < channels:
            options = options_of(channels)
            self._channels.append(open_async_channel(target_of(target), options, credentials=credentials, token=token))
        # Each for itself: what one process of a server refuses says nothing of another.
        self._throttles = [Throttle() for _ in self._channels if throttle]
        stubs = [service_pb2_grpc.LeewayStub(one) for one in self._channels]
        for stub, its in zip(stubs, self._throttles, strict=False):
            throttled_async(stub, its)
        self._stubs = itertools.cycle(stubs)
        self._local: LocalDecisions | None = None
        if fallback is not None:
            self._local = LocalDecisions(fallback)
            delivery = Delivery(self._local.outbox, HANDED_IN, refused_decision, random.random)
            self._courier = AsyncCourier(delivery, self._hand_in, HAND_IN_LINGER_S)

    @property
    def _stub(self) -> service_pb2_grpc.LeewayAsyncStub:
        """The stub of the channel whose turn it is."""
        return next(self._stubs)

    @property
    def held_back(self) -> int:
        """How many attempts were not sent, because the server would have refused them."""
        return sum(throttle.held_back for throttle in self._throttles)

    async def decide(
        self,
        point: str,
        context: Mapping[str, Plain] | bytes,
        actions: Iterable[Candidate | str],
        decision_id: str | None = None,
        *,
        deadline_s: float | None = None,
        fallback_vector: Sequence[float] | None = None,
        choice: Choice | None = None,
        defer_activation: bool = False,
    ) -> Decided:
        """Ask for one decision; see :meth:`LeewayClient.decide`."""
        request = decide_request(point, context, actions, decision_id, choice, defer_activation=defer_activation)
        local = self._local
        if local is None:
            no_vector(fallback_vector)
            return decided(await self._call(self._stub.Decide, request, deadline_s))
        if fallback_vector is not None:
            check_vector(fallback_vector, request)
        known = local.known(request.decision_id)
        if known is not None:
            return known
        try:
            answer = await self._call(self._stub.Decide, request, deadline_s, once=local.away)
        except grpc.RpcError as error:
            if not judged(error)[0]:
                raise
            made = local.decide(request, fallback_vector, error, time.time_ns() // 1_000_000)
            self._courier.wake()
            return made
        local.away = False
        return decided(answer)

    async def recommend(
        self,
        recommender: str,
        user: Mapping[str, Plain],
        candidates: Iterable[Candidate | str] = (),
        k: int = 0,
        exclude: Iterable[str] = (),
        decision_id: str | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Recommended:
        """Ask for a ranked list; see :meth:`LeewayClient.recommend`."""
        request = recommend_request(recommender, user, candidates, k, exclude, decision_id)
        return recommended(await self._call(self._stub.Recommend, request, deadline_s))

    async def decide_batch(
        self, requests: Iterable[service_pb2.DecideRequest], *, deadline_s: float | None = None
    ) -> list[Decided | Refused]:
        """Ask for many decisions at once; see :meth:`LeewayClient.decide_batch`."""
        batch = service_pb2.DecideBatchRequest(requests=requests)
        return decided_items(await self._call(self._stub.DecideBatch, batch, deadline_s))

    async def report(
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
        deadline_s: float | None = None,
    ) -> str:
        """Report an outcome and return its id; see :meth:`LeewayClient.report`."""
        request = report_request(
            decision_id, value, point=point, outcome_id=outcome_id, time_ms=time_ms, task=task, item=item, slot=slot
        )
        return (await self._call(self._stub.Report, request, deadline_s)).outcome_id

    async def activate(
        self, decision_id: str, *, point: str = "", time_ms: int = 0, deadline_s: float | None = None
    ) -> None:
        """Say that a deferred decision is acted on; see :meth:`LeewayClient.activate`."""
        request = activate_request(decision_id, point=point, time_ms=time_ms)
        await self._call(self._stub.Activate, request, deadline_s)

    async def report_batch(
        self, requests: Iterable[service_pb2.ReportRequest], *, deadline_s: float | None = None
    ) -> list[str | Refused]:
        """Report many outcomes; see :meth:`LeewayClient.report_batch`."""
        batch = service_pb2.ReportBatchRequest(requests=requests)
        return reported_items(await self._call(self._stub.ReportBatch, batch, deadline_s))

    async def hand_in(self, timeout_s: float = CLOSING_S) -> int:
        """Hand in now what the client decided by itself; see :meth:`LeewayClient.hand_in`."""
        if self._local is None:
            return 0
        await self._courier.flush(timeout_s)
        return len(self._local.outbox)

    async def _hand_in(self, batch: Sequence[bytes]) -> Answers:
        reply = await self._call(self._stub.Record, record_request(batch), None, once=True)
        return [taken(answer) for answer in decided_items(reply)]

    async def _call(
        self,
        method: Callable[..., Awaitable[A]],
        request: Q,
        deadline_s: float | None,
        *,
        once: bool = False,
    ) -> A:
        patience = self._patience if deadline_s is None else self._patience.within(deadline_s)
        attempts = Attempts(patience, time.monotonic(), random.random)
        while True:
            try:
                return await method(request, timeout=attempts.timeout_s(time.monotonic()))
            except grpc.RpcError as error:
                pause = None if once else attempts.pause_s(error, time.monotonic())
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def close(self, timeout_s: float = CLOSING_S) -> None:
        """Hand in what was decided here, as far as that goes in time, and close the connection."""
        if self._local is not None:
            await self._courier.close(timeout_s)
            if left := self._local.left():
                logger.warning("%s", left)
        for channel in self._channels:
            await channel.close(None)
        if self._local is not None:
            self._local.outbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
