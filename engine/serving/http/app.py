"""The ASGI application: translates calls, and decides nothing.

Everything runs on the one thread of its event loop. Scoring takes it for a moment, waiting for the log does not: a
caller over HTTP never holds one of the threads that answer gRPC, and all of them together take one thread's share of
the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from engine.api.leeway.v1 import service_pb2
from engine.config import ServingConfig
from engine.effort import Effort
from engine.errors import NotAuthenticated
from engine.serving.guard import bearer, permit, valid
from engine.serving.http.forms import (
    ActivateAnswer,
    ActivateForm,
    DecideAnswer,
    DecideBatchForm,
    DecideForm,
    Form,
    HealthAnswer,
    RecommendAnswer,
    RecommendForm,
    ReportAnswer,
    ReportBatchForm,
    ReportForm,
)
from engine.serving.http.openapi import DEADLINE_HEADER, document
from engine.serving.http.page import page
from engine.serving.http.problems import (
    MEDIA_TYPE,
    DecideBatchAnswer,
    DecideItem,
    Problem,
    RefusedError,
    ReportBatchAnswer,
    ReportItem,
    headers_of,
    malformed,
    problem_of,
)
from engine.serving.load import Load
from engine.serving.rates import ClientRates
from engine.serving.rules import RULES
from engine.serving.seams import Observer
from engine.serving.service import DecisionService
from engine.serving.tokens import Access, Caller

T = TypeVar("T")
F = TypeVar("F", bound=Form)

#: How long a body may take to come.
_BODY_S = 30.0
_LONGEST_MS = 3_600_000
_SERVICE = service_pb2.DESCRIPTOR.services_by_name["Leeway"].full_name


class HttpFace:
    """What answers over HTTP.

    Parameters
    ----------
    service
        The core.
    config
        Deadlines and limits; with ``http``.
    observer
        Is told of every call, under the names of gRPC.
    clock
        Milliseconds since 1970.
    access
        Gives who may call now; ``None``: anybody.
    load
        The calls that wait at the gRPC server: how much is done for a decision. ``None``: it is not asked.
    rates
        How much each client may ask for; ``None``: no limit.
    """

    def __init__(
        self,
        service: DecisionService,
        config: ServingConfig,
        observer: Observer,
        clock: Callable[[], int],
        access: Callable[[], Access] | None = None,
        load: Load | None = None,
        rates: ClientRates | None = None,
    ) -> None:
        self._service = service
        self._config = config
        self._observer = observer
        self._clock = clock
        self._access = access
        self._load = load
        self._rates = rates
        self._under_way = 0
        self._document = document()
        #: Set while the server drains: it is alive, and not ready.
        self.draining = False

    def app(self) -> Starlette:
        """Return the application."""

        def post(path: str, method: str, answer: Callable[[Request], Awaitable[Form]]) -> Route:
            return Route(path, self._counted(method, answer), methods=["POST"])

        return Starlette(
            routes=[
                post("/v1/decide", "Decide", self._decide),
                post("/v1/decide/batch", "DecideBatch", self._decide_batch),
                post("/v1/recommend", "Recommend", self._recommend),
                post("/v1/report", "Report", self._report),
                post("/v1/report/batch", "ReportBatch", self._report_batch),
                post("/v1/activate", "Activate", self._activate),
                Route("/health", self._alive, methods=["GET"]),
                Route("/ready", self._ready, methods=["GET"]),
                Route("/openapi.json", self._openapi, methods=["GET"]),
                Route("/docs", self._docs, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _not_ours},
        )

    def _counted(
        self, method: str, answer: Callable[[Request], Awaitable[Form]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self._observer.begin()
            self._under_way += 1
            code = "OK"
            try:
                self._check_room()
                return _json(await answer(request))
            except ClientDisconnect:
                code = "CANCELLED"
                return Response(status_code=http.HTTPStatus.BAD_REQUEST)  # nobody reads it
            except Exception as error:
                problem, code = problem_of(error)
                return _said(problem)
            finally:
                self._under_way -= 1
                self._observer.end(method, code)

        return endpoint

    def _check_room(self) -> None:
        assert self._config.http is not None
        if self._under_way > self._config.http.max_requests:
            raise RefusedError(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                "OVERLOADED",
                f"{self._under_way - 1} requests are under way, which is serving.http.max_requests; retry later",
                retry_after_s=1.0,
            )

    async def _decide(self, request: Request) -> Form:
        end = self._end(request)
        message = (await self._form(request, DecideForm, "Decide")).message()
        started = time.perf_counter()
        left = _left(end)
        answer = await _settled(self._service.decide(message, self._clock(), effort=self._effort("Decide", left)), left)
        self._observer.decided(message.decision_point, time.perf_counter() - started)
        return DecideAnswer.of(answer)

    async def _recommend(self, request: Request) -> Form:
        end = self._end(request)
        message = (await self._form(request, RecommendForm, "Recommend")).message()
        started = time.perf_counter()
        left = _left(end)
        answer = await _settled(
            self._service.recommend(message, self._clock(), effort=self._effort("Recommend", left)), left
        )
        self._observer.decided(message.recommender, time.perf_counter() - started)
        return RecommendAnswer.of(answer)

    async def _decide_batch(self, request: Request) -> Form:
        end = self._end(request)
        form = await self._form(request, DecideBatchForm, "DecideBatch")
        self._service.limits.batch(form.requests)
        now_ms = self._clock()
        pending: list[Future[service_pb2.DecideResponse] | Exception] = []
        for item in form.requests:
            try:
                effort = self._effort("DecideBatch", _left(end))
                pending.append(self._service.decide(item.message(), now_ms, effort=effort))
            except Exception as error:
                pending.append(error)
            await asyncio.sleep(0)  # others have their turn
        found = await _all(pending, end)
        return DecideBatchAnswer(
            items=[
                DecideItem(error=each) if isinstance(each, Problem) else DecideItem(response=DecideAnswer.of(each))
                for each in found
            ]
        )

    async def _report(self, request: Request) -> Form:
        end = self._end(request)
        message = (await self._form(request, ReportForm, "Report")).message()
        outcome_id, recorded = self._service.report(message, self._clock())
        await _settled(recorded, _left(end))
        self._observer.outcome()
        return ReportAnswer(outcome_id=outcome_id)

    async def _activate(self, request: Request) -> Form:
        end = self._end(request)
        message = (await self._form(request, ActivateForm, "Activate")).message()
        await _settled(self._service.activate(message, self._clock()), _left(end))
        return ActivateAnswer()

    async def _report_batch(self, request: Request) -> Form:
        end = self._end(request)
        form = await self._form(request, ReportBatchForm, "ReportBatch")
        self._service.limits.batch(form.requests)
        now_ms = self._clock()
        names: list[str] = []
        pending: list[Future[None] | Exception] = []
        for item in form.requests:
            try:
                outcome_id, recorded = self._service.report(item.message(), now_ms)
            except Exception as error:
                names.append("")
                pending.append(error)
            else:
                names.append(outcome_id)
                pending.append(recorded)
        items: list[ReportItem] = []
        found: list[Problem | None] = await _all(pending, end)
        for name, each in zip(names, found, strict=True):
            if isinstance(each, Problem):
                items.append(ReportItem(error=each))
            else:
                self._observer.outcome()
                items.append(ReportItem(response=ReportAnswer(outcome_id=name)))
        return ReportBatchAnswer(items=items)

    async def _alive(self, _: Request) -> Response:
        return _json(HealthAnswer(status="alive"))

    async def _ready(self, _: Request) -> Response:
        if self.draining:
            return _json(HealthAnswer(status="draining"), http.HTTPStatus.SERVICE_UNAVAILABLE)
        return _json(HealthAnswer(status="ready"))

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(self._document)

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(page(self._document))

    def _end(self, request: Request) -> float:
        """Return when the caller gives up, on the event loop's clock."""
        given = request.headers.get(DEADLINE_HEADER)
        if given is None:
            milliseconds = self._config.default_deadline
        elif given.isascii() and given.isdigit() and len(given) <= 7 and 1 <= int(given) <= _LONGEST_MS:
            milliseconds = int(given)
        else:
            raise RefusedError(
                http.HTTPStatus.BAD_REQUEST,
                "INVALID_REQUEST",
                f"{DEADLINE_HEADER}: {given[:100]!r} is no deadline; send whole milliseconds from 1 to {_LONGEST_MS}",
            )
        return asyncio.get_running_loop().time() + milliseconds / 1_000.0

    def _effort(self, method: str, left: float) -> Effort:
        if left * 1_000.0 < self._config.scoring_reserve:
            return Effort.DEADLINE
        effort = Effort.FULL if self._load is None else self._load.effort()
        if effort is not Effort.FULL:
            self._observer.degraded(method, effort.name.lower())
        return effort

    def _caller(self, request: Request) -> Caller | None:
        """Return who calls, by the token; ``None``: it is not asked. Raises ``NotAuthenticated``."""
        if self._access is None:
            return None
        words = request.headers.get("authorization")
        if words is None:
            raise NotAuthenticated("the request says not who makes it; send the header Authorization: Bearer TOKEN")
        return valid(self._access().by_token(bearer(words)), self._clock())

    async def _form(self, request: Request, kind: type[F], method: str) -> F:
        """Return the body of a request that may be made; raises ``RefusedError`` and what the guard raises."""
        caller = self._caller(request)  # before its body is read
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise RefusedError(
                http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                f"content-type: {media_type[:100]!r} is not read; send application/json",
            )
        body = await self._body(request)
        try:
            form = kind.model_validate_json(body)
        except ValidationError as error:
            raise malformed(error) from None
        if caller is not None:
            permit(caller, RULES[f"{_SERVICE}.{method}"], form)  # forms have the fields of messages
        if self._rates is not None:
            self._rates.take(_client(request) if caller is None else caller.name, method, form)
        return form

    async def _body(self, request: Request) -> bytes:
        most = self._config.max_message_bytes
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_S):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise RefusedError(
                            http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                            "TOO_LARGE",
                            f"the body is larger than serving.max_message_bytes ({most}); send less at once",
                        )
                    parts.append(part)
        except TimeoutError:
            raise RefusedError(
                http.HTTPStatus.REQUEST_TIMEOUT,
                "BODY_SLOW",
                f"the body did not come within {_BODY_S:g} s; send it again",
            ) from None
        return b"".join(parts)


async def _settled(future: Future[T], left: float) -> T:
    """Return what a future ends with; raises ``TimeoutError`` after ``left`` seconds.

    It is never cancelled: a retry with the same id waits for the same one.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    future.add_done_callback(tell)
    async with asyncio.timeout(left):
        await ended.wait()
    return future.result()


async def _all(pending: Sequence[Future[T] | Exception], end: float) -> list[T | Problem]:
    """Return what each of a batch ends with."""
    found: list[T | Problem] = []
    for each in pending:
        try:
            if isinstance(each, Exception):
                raise each
            answer: T = await _settled(each, _left(end))
            found.append(answer)
        except Exception as error:
            found.append(problem_of(error)[0])
    return found


def _client(request: Request) -> str:
    return "http" if request.client is None else f"http:{request.client.host}"


def _left(end: float) -> float:
    return max(end - asyncio.get_running_loop().time(), 0.0)


def _json(form: Form, status: http.HTTPStatus = http.HTTPStatus.OK) -> Response:
    return Response(form.model_dump_json(exclude_none=True), status.value, media_type="application/json")


def _said(problem: Problem) -> Response:
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, headers_of(problem), media_type=MEDIA_TYPE)


async def _not_ours(_: Request, error: Exception) -> Response:
    """Answer what no route takes: an unknown path, or a wrong method."""
    assert isinstance(error, HTTPException)
    status = http.HTTPStatus(error.status_code)
    detail = "see /openapi.json for what there is"
    problem = RefusedError(status, status.name, f"{status.phrase}; {detail}").problem
    response = _said(problem)
    response.headers.update(error.headers or {})
    return response
