"""The client for threads."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.channel import open_channel
from engine.client.connection import options_of, target_of
from engine.client.courier import Answers, Courier
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
from engine.client.held_back import throttled
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


class LeewayClient:
    """A connection to one or several Leeway servers. Safe for threads.

    Every decision and outcome carries an id, made here where the caller gives none, so that a retry is
    answered with the first answer and recorded once.

    Parameters
    ----------
    target
        ``host:port``; ``dns:///name:port`` for a name with several addresses; or a list of IP addresses with ports.
        Calls go to all that are connected, in turn.
    timeout_s
        Deadline of one attempt.
    retry_s
        How long attempts are repeated while the server cannot be reached, or has no room. What was refused for what
        it is, is not sent again.
    deadline_s
        Deadline of a call with all its attempts; default: ``timeout_s + retry_s``. Each call may have its own.
    fallback
        Decide here while no server can be reached, and hand it in when one is back; default: raise.
    channel
        A channel to use instead of one of its own; it is closed with the client.
    credentials
        For TLS, as ``engine.channel.tls_credentials`` makes them; ``None``: plain text.
    token
        Sent with each call.
    channels
        Connections to each server, which calls take in turn. A server of several processes needs several to have work
        for all of them, for each connection stays with one. All attempts of a call have the same one.
    throttle
        Whether decisions are held back, as if the server had refused them, while it refuses most of them: see
        docs/client.md. Outcomes are always sent.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout_s: float = 2.0,
        retry_s: float = 10.0,
        deadline_s: float | None = None,
        fallback: Fallback | None = None,
        channel: grpc.Channel | None = None,
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
            self._channels.append(open_channel(target_of(target), options, credentials=credentials, token=token))
        # Each for itself: what one process of a server refuses says nothing of another.
        self._throttles = [Throttle() for _ in self._channels if throttle]
        stubs = [service_pb2_grpc.LeewayStub(one) for one in self._channels]
        for stub, its in zip(stubs, self._throttles, strict=False):
            throttled(stub, its)
        self._stubs = itertools.cycle(stubs)
        self._local: LocalDecisions | None = None
        if fallback is not None:
            self._local = LocalDecisions(fallback)
            delivery = Delivery(self._local.outbox, HANDED_IN, refused_decision, random.random)
            self._courier = Courier(delivery, self._hand_in, HAND_IN_LINGER_S)

    @property
    def _stub(self) -> service_pb2_grpc.LeewayStub:
        """The stub of the channel whose turn it is."""
        return next(self._stubs)

    @property
    def held_back(self) -> int:
        """How many attempts were not sent, because the server would have refused them."""
        return sum(throttle.held_back for throttle in self._throttles)

    def decide(
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
        """Ask for one decision; raises ``grpc.RpcError`` with the server's reason.

        Parameters
        ----------
        point
            The decision point.
        context
            Its features; as bytes, the packed float32 form.
        actions
            Candidates, by id or with features.
        decision_id
            Makes a retry by the caller safe. Outcomes are reported with the id in the answer: that of a decision
            which the client made by itself is another one.
        deadline_s
            Deadline of this call with all its attempts.
        fallback_vector
            What to draw from if no server can be reached, in the order of the actions; default: as ``fallback`` says.
        choice
            What the caller does by itself: it acts where the decision point's mode is ``logging_only``, and, unless
            ``fallback_vector`` is given, where the client has a fallback and no server can be reached.
        defer_activation
            Learn nothing from the decision unless :meth:`activate` says, within its reward window, that it is acted on.
        """
        request = decide_request(point, context, actions, decision_id, choice, defer_activation=defer_activation)
        local = self._local
        if local is None:
            no_vector(fallback_vector)
            return decided(self._call(self._stub.Decide, request, deadline_s))
        if fallback_vector is not None:
            check_vector(fallback_vector, request)
        known = local.known(request.decision_id)
        if known is not None:
            return known
        try:
            answer = self._call(self._stub.Decide, request, deadline_s, once=local.away)
        except grpc.RpcError as error:
            if not judged(error)[0]:
                raise
            made = local.decide(request, fallback_vector, error, time.time_ns() // 1_000_000)
            self._courier.wake()
            return made
        local.away = False
        return decided(answer)

    def recommend(
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
        """Ask for a ranked list; raises ``grpc.RpcError`` with the server's reason.

        Parameters
        ----------
        recommender
            Which.
        user
            What is known of the user and the request; a history is a list of texts, the latest last.
        candidates
            Items to choose from, by id or with features; none: the whole catalogue.
        k
            How many items; 0: as many as the recommender has slots.
        exclude
            Ids of items that must not come.
        decision_id
            Makes a retry safe; outcomes are reported with it.
        deadline_s
            Deadline of this call with all its attempts.
        """
        request = recommend_request(recommender, user, candidates, k, exclude, decision_id)
        return recommended(self._call(self._stub.Recommend, request, deadline_s))

    def decide_batch(
        self, requests: Iterable[service_pb2.DecideRequest], *, deadline_s: float | None = None
    ) -> list[Decided | Refused]:
        """Ask for many decisions at once (see ``decide_request``); items fail one by one.

        The client decides none of them by itself: the call fails as a whole where no server can be reached.
        """
        batch = service_pb2.DecideBatchRequest(requests=requests)
        return decided_items(self._call(self._stub.DecideBatch, batch, deadline_s))

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
        deadline_s: float | None = None,
    ) -> str:
        """Report an outcome and return its id; of a list, with its task, and the item or its slot (from 0)."""
        request = report_request(
            decision_id, value, point=point, outcome_id=outcome_id, time_ms=time_ms, task=task, item=item, slot=slot
        )
        return self._call(self._stub.Report, request, deadline_s).outcome_id

    def activate(self, decision_id: str, *, point: str = "", time_ms: int = 0, deadline_s: float | None = None) -> None:
        """Say that a decision asked for with ``defer_activation`` is acted on: only then it is learned from."""
        request = activate_request(decision_id, point=point, time_ms=time_ms)
        self._call(self._stub.Activate, request, deadline_s)

    def report_batch(
        self, requests: Iterable[service_pb2.ReportRequest], *, deadline_s: float | None = None
    ) -> list[str | Refused]:
        """Report many outcomes (see ``report_request``); items fail one by one."""
        batch = service_pb2.ReportBatchRequest(requests=requests)
        return reported_items(self._call(self._stub.ReportBatch, batch, deadline_s))

    def hand_in(self, timeout_s: float = CLOSING_S) -> int:
        """Hand in now what the client decided by itself, and return how many decisions are left.

        It is done in the background, too, as soon as a server is back.
        """
        if self._local is None:
            return 0
        self._courier.flush(timeout_s)
        return len(self._local.outbox)

    def _hand_in(self, batch: Sequence[bytes]) -> Answers:
        reply = self._call(self._stub.Record, record_request(batch), None, once=True)
        return [taken(answer) for answer in decided_items(reply)]

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        deadline_s: float | None,
        *,
        once: bool = False,
    ) -> A:
        patience = self._patience if deadline_s is None else self._patience.within(deadline_s)
        attempts = Attempts(patience, time.monotonic(), random.random)
        while True:
            try:
                return method(request, timeout=attempts.timeout_s(time.monotonic()))
            except grpc.RpcError as error:
                pause = None if once else attempts.pause_s(error, time.monotonic())
                if pause is None:
                    raise
            time.sleep(pause)

    def close(self, timeout_s: float = CLOSING_S) -> None:
        """Hand in what was decided here, as far as that goes in time, and close the connection."""
        if self._local is not None:
            self._courier.close(timeout_s)
            if left := self._local.left():
                logger.warning("%s", left)
        for channel in self._channels:
            channel.close()
        if self._local is not None:
            self._local.outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
