"""The gRPC face of the serving core."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import grpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.config import ServingConfig
from engine.effort import Effort
from engine.errors import InvalidRequest
from engine.serving.batch import Batch
from engine.serving.errors import status_of
from engine.serving.later import Later
from engine.serving.load import Load
from engine.serving.sealing import batch_item, batch_response
from engine.serving.seams import Observer
from engine.serving.service import DecisionService
from engine.serving.streams import Streams

logger = logging.getLogger(__name__)

#: Methods that wait for nothing but the log, and that last.
LATER = frozenset({"Decide", "Report"})
#: Requests that are scored in one matrix. Between two of them it is asked how much of the deadline is left.
MATRIX = 64
_Answer = bytes | Future[service_pb2.DecideResponse] | Exception


class LeewayServicer(service_pb2_grpc.LeewayServicer):
    """Translates calls; decides nothing.

    Parameters
    ----------
    service
        The core.
    config
        Deadlines.
    observer
        Is told of every call.
    clock
        Milliseconds since 1970.

    Attributes
    ----------
    load : Load
        The calls that wait for it.
    """

    # Where an override is ignored, a method gives what goes onto the wire, or what is left of the call, and not the
    # message of the generated stub; the names are those of the service.

    #: Of each instance: grpcio looks for the threads of a method at what it calls.
    DecideStream: Any = None

    def __init__(
        self, service: DecisionService, config: ServingConfig, observer: Observer, clock: Callable[[], int]
    ) -> None:
        self._service = service
        self._config = config
        self._observer = observer
        self._clock = clock
        self.load = Load(config)
        self._streams = Streams(self._stream, most=MATRIX, streams=config.streams)
        self.DecideStream = self._streams

    def end_streams(self) -> None:
        """Let streams end once what has come is answered; a server that drains calls it."""
        self._streams.end()

    def prepare(self, requests: Sequence[object]) -> None:
        """Decide for calls whose turn comes next, if they are going to be scored."""
        if self.load.effort().scores:
            self._service.prepare([one for one in requests if isinstance(one, DecideRequestParts)], self._clock())

    def Decide(  # type: ignore[override]  # noqa: N802
        self, request: DecideRequestParts, context: grpc.ServicerContext
    ) -> bytes | Later:
        """Answer one request."""
        self._observer.begin()
        started = time.perf_counter()
        try:
            left = self._time_left(context)
            effort = self._effort("Decide", left)
            answer = self._service.answer(request, self._clock(), effort=effort)
        except Exception as error:
            self._abort("Decide", context, error)
        if isinstance(answer, bytes):
            return self._decided(request, started, answer)

        def finish(wait_s: float) -> bytes:
            try:
                made = answer.result(timeout=wait_s)
            except Exception as error:
                self._abort("Decide", context, error)
            return self._decided(request, started, made.SerializeToString())

        return Later(answer, left, finish)

    def _decided(self, request: DecideRequestParts, started: float, answer: bytes) -> bytes:
        self._observer.decided(request.decision_point, time.perf_counter() - started)
        self._observer.end("Decide", "OK")
        return answer

    def Recommend(  # noqa: N802
        self, request: service_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> service_pb2.RecommendResponse:
        """Answer one request for a list."""
        self._observer.begin()
        started = time.perf_counter()
        try:
            left = self._time_left(context)
            effort = self._effort("Recommend", left)
            answer = self._service.recommend(request, self._clock(), effort=effort).result(timeout=left)
        except Exception as error:
            self._abort("Recommend", context, error)
        self._observer.decided(request.recommender, time.perf_counter() - started)
        self._observer.end("Recommend", "OK")
        return answer

    def DecideBatch(  # type: ignore[override]  # noqa: N802
        self, request: Batch, context: grpc.ServicerContext
    ) -> bytes:
        """Answer many; all of them are on their way to the log before the first is waited for."""
        self._observer.begin()
        started = time.perf_counter()
        self._check_batch("DecideBatch", context, request.requests)
        left = self._time_left(context)
        answers: list[_Answer] = []
        for requests, data in request.portions(MATRIX):
            answers += self._begin("DecideBatch", requests, context, data)
        items = self._ended(answers, started, left)
        self._observer.end("DecideBatch", "OK")
        return batch_response(items)

    def _stream(self, requests: Sequence[DecideRequestParts], context: grpc.ServicerContext) -> list[bytes]:
        self._observer.begin()
        started = time.perf_counter()
        left = self._time_left(context)
        items = self._ended(self._begin("DecideStream", requests, context), started, left)
        self._observer.end("DecideStream", "OK")
        return items

    def _begin(
        self, method: str, requests: Sequence[DecideRequestParts], context: grpc.ServicerContext, data: bytes = b""
    ) -> list[_Answer]:
        """Decide some requests in one matrix; they are on their way to the log."""
        effort = self._effort(method, self._time_left(context))
        return self._service.answer_each(requests, self._clock(), effort=effort, data=data)

    def _ended(self, answers: Sequence[_Answer], started: float, left: float) -> list[bytes]:
        """Wait for answers, and return each as the item of a batch; each succeeds or fails by itself."""
        items = []
        for answer in answers:
            try:
                if isinstance(answer, Exception):
                    raise answer
                if not isinstance(answer, bytes):
                    answer = answer.result(timeout=self._left(started, left)).SerializeToString()
                items.append(batch_item(answer))
            except Exception as error:
                items.append(service_pb2.DecideBatchItem(error=_logged_status(error)).SerializeToString())
        return items

    def Report(  # type: ignore[override]  # noqa: N802
        self, request: service_pb2.ReportRequest, context: grpc.ServicerContext
    ) -> Later:
        """Take one outcome."""
        self._observer.begin()
        try:
            left = self._time_left(context)
            outcome_id, recorded = self._service.report(request, self._clock())
        except Exception as error:
            self._abort("Report", context, error)

        def finish(wait_s: float) -> service_pb2.ReportResponse:
            try:
                recorded.result(timeout=wait_s)
            except Exception as error:
                self._abort("Report", context, error)
            self._observer.outcome()
            self._observer.end("Report", "OK")
            return service_pb2.ReportResponse(outcome_id=outcome_id)

        return Later(recorded, left, finish)

    def ReportBatch(  # noqa: N802
        self, request: service_pb2.ReportBatchRequest, context: grpc.ServicerContext
    ) -> service_pb2.ReportBatchResponse:
        """Take many outcomes."""
        self._observer.begin()
        started = time.perf_counter()
        self._check_batch("ReportBatch", context, request.requests)
        left = self._time_left(context)
        now_ms = self._clock()
        pending: list[tuple[str, Future[None]] | Exception] = []
        for item in request.requests:
            try:
                pending.append(self._service.report(item, now_ms))
            except Exception as error:
                pending.append(error)
        reply = service_pb2.ReportBatchResponse()
        for report in pending:
            try:
                if isinstance(report, Exception):
                    raise report
                report[1].result(timeout=self._left(started, left))
                self._observer.outcome()
                reply.items.add(response=service_pb2.ReportResponse(outcome_id=report[0]))
            except Exception as error:
                reply.items.add(error=_logged_status(error))
        self._observer.end("ReportBatch", "OK")
        return reply

    def Activate(  # noqa: N802
        self, request: service_pb2.ActivateRequest, context: grpc.ServicerContext
    ) -> service_pb2.ActivateResponse:
        """Take word that a deferred decision is acted on."""
        self._observer.begin()
        try:
            self._service.activate(request, self._clock()).result(timeout=self._time_left(context))
        except Exception as error:
            self._abort("Activate", context, error)
        self._observer.end("Activate", "OK")
        return service_pb2.ActivateResponse()

    def Record(  # type: ignore[override]  # noqa: N802
        self, request: service_pb2.RecordRequest, context: grpc.ServicerContext
    ) -> bytes:
        """Take decisions that a client made by itself."""
        self._observer.begin()
        started = time.perf_counter()
        self._check_batch("Record", context, request.decisions)
        left = self._time_left(context)
        now_ms = self._clock()
        answers: list[_Answer] = []
        for item in request.decisions:
            try:
                answers.append(self._service.record(item, now_ms))
            except Exception as error:
                answers.append(error)
        items = self._ended(answers, started, left)
        self._observer.end("Record", "OK")
        return batch_response(items)

    def _time_left(self, context: grpc.ServicerContext) -> float:
        """Seconds until the caller gives up; a caller without a deadline gets the default."""
        remaining = context.time_remaining()
        default = self._config.default_deadline / 1_000.0
        # Without a deadline grpcio reports the distance to the end of time.
        return default if remaining > 1e6 else max(remaining, 0.0)

    def _effort(self, method: str, left: float) -> Effort:
        """Return how much is done with ``left`` seconds to go, and so many calls waiting."""
        if left * 1_000.0 < self._config.scoring_reserve:
            return Effort.DEADLINE
        effort = self.load.effort()
        if effort is not Effort.FULL:
            self._observer.degraded(method, effort.name.lower())
        return effort

    @staticmethod
    def _left(started: float, budget: float) -> float:
        return max(budget - (time.perf_counter() - started), 0.0)

    def _check_batch(self, method: str, context: grpc.ServicerContext, requests: Sequence[object]) -> None:
        try:
            self._service.limits.batch(requests)
        except InvalidRequest as error:
            self._abort(method, context, error)

    def _abort(self, method: str, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        status = _logged_status(error)
        code = rpc_status.to_status(status)
        self._observer.end(method, code.code.name)
        context.abort_with_status(code)
        raise AssertionError("abort_with_status raises")


def _logged_status(error: Exception) -> Status:
    status = status_of(error)
    if status.code == grpc.StatusCode.INTERNAL.value[0]:
        logger.error("request failed", exc_info=error)
    return status
