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
from engine.config import ServingConfig
from engine.errors import InvalidRequest
from engine.serving.errors import status_of
from engine.serving.seams import Observer
from engine.serving.service import DecisionService
from engine.serving.streams import Streams

logger = logging.getLogger(__name__)

#: Requests that are scored in one matrix. Between two of them it is asked how much of the deadline is left.
MATRIX = 64
_Answer = Future[service_pb2.DecideResponse] | Exception


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
    """

    #: Of each instance: grpcio looks for the threads of a method at what it calls.
    DecideStream: Any = None

    def __init__(
        self, service: DecisionService, config: ServingConfig, observer: Observer, clock: Callable[[], int]
    ) -> None:
        self._service = service
        self._config = config
        self._observer = observer
        self._clock = clock
        self._streams = Streams(self._stream, most=MATRIX, streams=config.streams)
        self.DecideStream = self._streams

    def end_streams(self) -> None:
        """Let streams end once what has come is answered; a server that drains calls it."""
        self._streams.end()

    def Decide(  # noqa: N802
        self, request: service_pb2.DecideRequest, context: grpc.ServicerContext
    ) -> service_pb2.DecideResponse:
        """Answer one request."""
        self._observer.begin()
        started = time.perf_counter()
        try:
            left = self._time_left(context)
            answer = self._service.decide(request, self._clock(), hurry=self._hurry(left)).result(timeout=left)
        except Exception as error:
            self._abort("Decide", context, error)
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
            answer = self._service.recommend(request, self._clock(), hurry=self._hurry(left)).result(timeout=left)
        except Exception as error:
            self._abort("Recommend", context, error)
        self._observer.decided(request.recommender, time.perf_counter() - started)
        self._observer.end("Recommend", "OK")
        return answer

    def DecideBatch(  # noqa: N802
        self, request: service_pb2.DecideBatchRequest, context: grpc.ServicerContext
    ) -> service_pb2.DecideBatchResponse:
        """Answer many; all of them are on their way to the log before the first is waited for."""
        self._observer.begin()
        started = time.perf_counter()
        self._check_batch("DecideBatch", context, request.requests)
        left = self._time_left(context)
        answers: list[_Answer] = []
        for start in range(0, len(request.requests), MATRIX):
            answers += self._begin(request.requests[start : start + MATRIX], context)
        items = self._ended(answers, started, left)
        self._observer.end("DecideBatch", "OK")
        return service_pb2.DecideBatchResponse(items=items)

    def _stream(
        self, requests: Sequence[service_pb2.DecideRequest], context: grpc.ServicerContext
    ) -> list[service_pb2.DecideBatchItem]:
        self._observer.begin()
        started = time.perf_counter()
        left = self._time_left(context)
        items = self._ended(self._begin(requests, context), started, left)
        self._observer.end("DecideStream", "OK")
        return items

    def _begin(self, requests: Sequence[service_pb2.DecideRequest], context: grpc.ServicerContext) -> list[_Answer]:
        """Decide some requests in one matrix; they are on their way to the log."""
        hurry = self._hurry(self._time_left(context))
        return self._service.decide_each(requests, self._clock(), hurry=hurry)

    def _ended(self, answers: Sequence[_Answer], started: float, left: float) -> list[service_pb2.DecideBatchItem]:
        """Wait for answers; each succeeds or fails by itself."""
        items = []
        for answer in answers:
            try:
                if isinstance(answer, Exception):
                    raise answer
                items.append(service_pb2.DecideBatchItem(response=answer.result(timeout=self._left(started, left))))
            except Exception as error:
                items.append(service_pb2.DecideBatchItem(error=_logged_status(error)))
        return items

    def Report(  # noqa: N802
        self, request: service_pb2.ReportRequest, context: grpc.ServicerContext
    ) -> service_pb2.ReportResponse:
        """Take one outcome."""
        self._observer.begin()
        try:
            outcome_id, recorded = self._service.report(request, self._clock())
            recorded.result(timeout=self._time_left(context))
        except Exception as error:
            self._abort("Report", context, error)
        self._observer.outcome()
        self._observer.end("Report", "OK")
        return service_pb2.ReportResponse(outcome_id=outcome_id)

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

    def Record(  # noqa: N802
        self, request: service_pb2.RecordRequest, context: grpc.ServicerContext
    ) -> service_pb2.DecideBatchResponse:
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
        return service_pb2.DecideBatchResponse(items=items)

    def _time_left(self, context: grpc.ServicerContext) -> float:
        """Seconds until the caller gives up; a caller without a deadline gets the default."""
        remaining = context.time_remaining()
        default = self._config.default_deadline / 1_000.0
        # Without a deadline grpcio reports the distance to the end of time.
        return default if remaining > 1e6 else max(remaining, 0.0)

    def _hurry(self, left: float) -> bool:
        return left * 1_000.0 < self._config.scoring_reserve

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
