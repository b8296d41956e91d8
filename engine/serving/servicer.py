"""The gRPC face of the serving core."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NoReturn

import grpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.config import ServingConfig
from engine.errors import InvalidRequest
from engine.serving.errors import status_of
from engine.serving.seams import Observer
from engine.serving.service import DecisionService

logger = logging.getLogger(__name__)


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

    def __init__(
        self, service: DecisionService, config: ServingConfig, observer: Observer, clock: Callable[[], int]
    ) -> None:
        self._service = service
        self._config = config
        self._observer = observer
        self._clock = clock

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
        now_ms = self._clock()
        pending: list[Future[service_pb2.DecideResponse] | Exception] = []
        for item in request.requests:
            try:
                pending.append(self._service.decide(item, now_ms, hurry=self._hurry(self._time_left(context))))
            except Exception as error:
                pending.append(error)
        reply = self._decided_items(pending, started, left)
        self._observer.end("DecideBatch", "OK")
        return reply

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
        self._check_batch("Record", context, request.decisions)
        self._observer.begin()
        started = time.perf_counter()
        left = self._time_left(context)
        now_ms = self._clock()
        pending: list[Future[service_pb2.DecideResponse] | Exception] = []
        for item in request.decisions:
            try:
                pending.append(self._service.record(item, now_ms))
            except Exception as error:
                pending.append(error)
        reply = self._decided_items(pending, started, left)
        self._observer.end("Record", "OK")
        return reply

    def _decided_items(
        self, pending: list[Future[service_pb2.DecideResponse] | Exception], started: float, left: float
    ) -> service_pb2.DecideBatchResponse:
        reply = service_pb2.DecideBatchResponse()
        for answer in pending:
            try:
                if isinstance(answer, Exception):
                    raise answer
                reply.items.add(response=answer.result(timeout=self._left(started, left)))
            except Exception as error:
                reply.items.add(error=_logged_status(error))
        return reply

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
