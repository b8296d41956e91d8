"""The application: the console's files, and the JSON that its page asks for."""

from __future__ import annotations

import asyncio
import http
import json
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine import __version__
from engine.config import Model
from engine.errors import ConfigError, LeewayError, NotAuthenticated, NotPermitted
from engine.records import MAX_ID_LENGTH
from engine.serving.audit import AuditLog
from engine.serving.tokens import Caller, Scope
from streaming.config import Config
from streaming.console.changing import (
    AcknowledgeForm,
    MoveForm,
    acknowledge_alarm,
    move_champion,
    point_of_alarm,
)
from streaming.console.gate import HEADERS, Gate, permit_point, permit_scope, sees
from streaming.console.looking import Looks

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)
#: From a request and who asks to what is answered, and the decision point that it is about.
Answer = Callable[[Request, Caller | None], Awaitable[tuple[Any, str]]]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_MOST_BYTES = 65_536
_BODY_S = 10.0


class Console:
    """What answers.

    Parameters
    ----------
    config
        The configuration.
    gate
        Who may ask.
    audit
        Where changes, look-ups of decisions and refusals are noted.
    clock
        Milliseconds since 1970.
    """

    def __init__(self, config: Config, gate: Gate, audit: AuditLog, clock: Callable[[], int]) -> None:
        self._config = config
        self._gate = gate
        self._audit = audit
        self._clock = clock
        self._looks = Looks(config, clock)
        self._changing = threading.Lock()
        self._files = {
            file.name: (file.read_bytes(), _TYPES[file.name.rpartition(".")[2]])
            for file in files("streaming.console").joinpath("pages").iterdir()
        }
        if gate.guarded:
            # The page asks for a token first, rather than to be refused: browsers report that as an error.
            page, kind = self._files["index.html"]
            self._files["index.html"] = (page.replace(b"<body>", b"<body data-guarded>", 1), kind)

    def app(self) -> Starlette:
        """Return the application."""

        def get(path: str, answer: Answer, name: str, *, noted: bool = False) -> Route:
            return Route(f"/api/{path}", self._answered(answer, name, "read", noted=noted), methods=["GET"])

        def post(path: str, answer: Answer, name: str) -> Route:
            return Route(f"/api/{path}", self._answered(answer, name, "admin", noted=True), methods=["POST"])

        return Starlette(
            routes=[
                get("session", self._session, "Session"),
                get("health", self._health, "Health"),
                get("live", self._of_point(self._looks.live), "Live"),
                get("drift", self._of_point(self._looks.drift), "Drift"),
                get("alarms", self._alarms, "Alarms"),
                get("generations", self._of_point(self._looks.generations, lists=False), "Generations"),
                get("policies", self._of_point(self._looks.policies), "Policies"),
                get("join", self._join, "Join"),
                get("decision", self._decision, "Decision", noted=True),
                post("alarms/acknowledge", self._acknowledge, "Acknowledge"),
                post("policies/move", self._move, "Move"),
                Route("/", self._file, methods=["GET"]),
                Route("/{name}", self._file, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _not_ours},
        )

    def _answered(
        self, answer: Answer, name: str, scope: Scope, *, noted: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            caller: Caller | None = None
            point, verdict = "", "UNKNOWN"
            try:
                self._gate.check_name(request)
                if request.method != "GET":
                    self._gate.check_origin(request)
                caller = self._gate.caller(request)
                permit_scope(caller, scope, request)
                value, point = await answer(request, caller)
                verdict = "OK" if "done" not in value else "DONE" if value["done"] else "NOTHING_DONE"
                return _json(value)
            except Exception as error:
                status, verdict, words = _problem(error)
                headers = {"WWW-Authenticate": "Bearer"} if status == http.HTTPStatus.UNAUTHORIZED else {}
                return _json({"error": words}, status, headers)
            finally:
                if noted or verdict in ("UNAUTHENTICATED", "PERMISSION_DENIED", "FORBIDDEN"):
                    self._note(request, caller, name, point, verdict)

        return endpoint

    def _note(self, request: Request, caller: Caller | None, name: str, point: str, verdict: str) -> None:
        peer = "" if request.client is None else f"{request.client.host}:{request.client.port}"
        who = "" if caller is None else caller.name
        self._audit.note(self._clock(), who=who, peer=peer, call=f"Console{name}", point=point, verdict=verdict)

    async def _file(self, request: Request) -> Response:
        self._gate.check_name(request)
        found = self._files.get(request.path_params.get("name", "index.html"))
        if found is None:
            raise HTTPException(http.HTTPStatus.NOT_FOUND)
        return Response(found[0], headers=HEADERS, media_type=found[1])

    async def _session(self, _: Request, caller: Caller | None) -> tuple[Any, str]:
        return {
            "version": __version__,
            "who": None if caller is None else caller.name,
            "guarded": self._gate.guarded,
            "may_change": caller is None or "admin" in caller.scopes,
            "change_key": self._gate.key,
            "points": [
                {"name": name, "kind": "recommender" if name in self._config.recommenders else "decision point"}
                for name in self._config.deciding
                if sees(caller, name)
            ],
        }, ""

    async def _health(self, _: Request, caller: Caller | None) -> tuple[Any, str]:
        return await asyncio.to_thread(self._looks.health, caller), ""

    async def _alarms(self, _: Request, caller: Caller | None) -> tuple[Any, str]:
        return await asyncio.to_thread(self._looks.alarms, caller), ""

    async def _join(self, _: Request, caller: Caller | None) -> tuple[Any, str]:
        return await asyncio.to_thread(self._looks.join, caller), ""

    def _of_point(self, look: Callable[[str], Any], *, lists: bool = True) -> Answer:
        """Return what answers about the point that a request names; ``lists``: it may be a recommender."""
        known = self._config.deciding if lists else self._config.decision_points

        async def answer(request: Request, caller: Caller | None) -> tuple[Any, str]:
            point = request.query_params.get("point", "")
            permit_point(caller, point, known)
            return await asyncio.to_thread(look, point), point

        return answer

    async def _decision(self, request: Request, caller: Caller | None) -> tuple[Any, str]:
        decision_id = request.query_params.get("id", "").strip()
        if not 0 < len(decision_id) <= MAX_ID_LENGTH:
            raise HTTPException(http.HTTPStatus.BAD_REQUEST, f"id: give a decision's id, of 1 to {MAX_ID_LENGTH} signs")
        found = await asyncio.to_thread(self._looks.decision, decision_id, caller)
        if found is None:
            raise HTTPException(
                http.HTTPStatus.NOT_FOUND,
                f"decision {decision_id!r} is not among the newest of the log; for older ones: leeway replay "
                "--decision-id",
            )
        return found, found["decision_point"]

    async def _acknowledge(self, request: Request, caller: Caller | None) -> tuple[Any, str]:
        form = await _form(request, AcknowledgeForm)
        point = await asyncio.to_thread(point_of_alarm, self._config, form.alarm_id)
        if point is None or not sees(caller, point):
            raise HTTPException(http.HTTPStatus.NOT_FOUND, f"alarm {form.alarm_id!r}: there is none")
        return await asyncio.to_thread(self._changed, lambda: acknowledge_alarm(self._config, form)), point

    async def _move(self, request: Request, caller: Caller | None) -> tuple[Any, str]:
        form = await _form(request, MoveForm)
        permit_point(caller, form.point, self._config.decision_points)
        return await asyncio.to_thread(
            self._changed, lambda: move_champion(self._config, form, self._clock)
        ), form.point

    def _changed(self, change: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with self._changing:
            found = change()
        self._looks.forget()
        return found


async def _form(request: Request, kind: type[M]) -> M:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    body = b""
    async with asyncio.timeout(_BODY_S):
        async for part in request.stream():
            body += part
            if len(body) > _MOST_BYTES:
                raise HTTPException(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send {_MOST_BYTES} bytes at most")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        words = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:10])
        raise HTTPException(http.HTTPStatus.BAD_REQUEST, words) from None


def _problem(error: Exception) -> tuple[http.HTTPStatus, str, str]:
    """Return status, verdict for the audit log, and words of an error."""
    match error:
        case NotAuthenticated():
            return http.HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED", str(error)
        case NotPermitted():
            return http.HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", str(error)
        case HTTPException():
            status = http.HTTPStatus(error.status_code)
            return status, status.name, error.detail
        case TimeoutError():
            return http.HTTPStatus.REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not come in time; send it again"
        case ConfigError():
            return http.HTTPStatus.BAD_REQUEST, "BAD_REQUEST", str(error)
        case LeewayError():
            return http.HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", str(error)
    logger.error("request failed", exc_info=error)
    return http.HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "it failed; the messages of `leeway console` say why"


def _json(value: Any, status: http.HTTPStatus = http.HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(
        json.dumps(_finite(value), allow_nan=False), status, {**HEADERS, **(headers or {})}, "application/json"
    )


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value


async def _not_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, {**HEADERS, **(error.headers or {})})
