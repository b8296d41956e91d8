"""For tests of code that uses the client: the client itself, over an engine in memory that tells what it was asked.

Examples
--------
>>> engine = FakeEngine({"offers": "large"})
>>> with FakeClient(engine) as client:
...     decided = client.decide("offers", {"basket": 0.4}, ["none", "small", "large"])
...     _ = client.report(decided.decision_id, 1.0)
>>> decided.action
'large'
>>> engine.assert_all_reported()
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from engine.api.leeway.v1.service_pb2 import (
    ActivateRequest,
    ActivateResponse,
    ClientDecision,
    DecideBatchRequest,
    DecideBatchResponse,
    DecideRequest,
    DecideResponse,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    RecordRequest,
    ReportBatchItem,
    ReportBatchRequest,
    ReportBatchResponse,
    ReportRequest,
    ReportResponse,
)
from engine.client.asynchronous import AsyncClient
from engine.client.blocking import LeewayClient
from engine.client.fallback import Fallback, uniform_vector
from engine.records import FALLBACK_REASON_CLIENT
from engine.sampling import draw, vector_problem

#: What is decided at a point: always this action; drawn from this vector; or from the vector that a function gives.
Given = str | Sequence[float] | Callable[[DecideRequest], Sequence[float]]
VERSION = "g0.0-00000000"
_SALT = "fake"


class FakeError(grpc.RpcError):
    """How a call of the fake fails, as one of a server would."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return self._code

    def details(self) -> str:
        """Return the reason."""
        return self._details

    def trailing_metadata(self) -> tuple[Any, ...]:
        """Return nothing: the fake gives no hints."""
        return ()


class FakeEngine:
    """An engine in memory. Safe for threads.

    Parameters
    ----------
    decides
        What it decides, by decision point; a point that is not named draws uniformly. The draw is a function of the
        decision id, so that a test with ids of its own always gets the same.
    recommends
        Ids of the items that it recommends, by recommender, best first; one that is not named gives the candidates of
        the request in a uniformly drawn order.

    Attributes
    ----------
    requests : dict of str to DecideRequest or RecommendRequest
        What was asked, by decision id, in the order in which it came.
    answers : dict of str to DecideResponse or RecommendResponse
        What was answered.
    outcomes : list of ReportRequest
        What was reported; an outcome id counts once.
    handed_in : list of ClientDecision
        Decisions that a client made by itself while the fake was failing.
    activated : set of str
        Ids of decisions that are acted on.
    """

    def __init__(
        self, decides: Mapping[str, Given] | None = None, recommends: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._decides = dict(decides or {})
        self._recommends = dict(recommends or {})
        self.requests: dict[str, DecideRequest | RecommendRequest] = {}
        self.answers: dict[str, DecideResponse | RecommendResponse] = {}
        self.outcomes: list[ReportRequest] = []
        self.handed_in: list[ClientDecision] = []
        self.activated: set[str] = set()
        self._outcome_ids: set[str] = set()
        self._failing: FakeError | None = None
        self._lock = threading.Lock()

    def fail(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "the fake is away") -> None:
        """Fail every call from now on."""
        self._failing = FakeError(code, details)

    def recover(self) -> None:
        """Answer again."""
        self._failing = None

    def unreported(self) -> list[str]:
        """Return the ids of the decisions of which no outcome was reported."""
        reported = {outcome.decision_id for outcome in self.outcomes}
        return [decision_id for decision_id in self._known() if decision_id not in reported]

    def strays(self) -> list[str]:
        """Return the decision ids of outcomes that belong to no decision: the real engine puts them aside."""
        known = self._known()
        return [outcome.decision_id for outcome in self.outcomes if outcome.decision_id not in known]

    def assert_all_reported(self) -> None:
        """Raise ``AssertionError`` unless every decision has an outcome, and every outcome a decision."""
        missing, strays = self.unreported(), self.strays()
        if missing:
            raise AssertionError(f"no outcome was reported of {len(missing)} decisions: {', '.join(missing[:10])}")
        if strays:
            raise AssertionError(f"{len(strays)} outcomes name no decision that was made: {', '.join(strays[:10])}")

    def _known(self) -> dict[str, None]:
        return dict.fromkeys([*self.answers, *(made.request.decision_id for made in self.handed_in)])

    def call(self, method: str, request: Message) -> Message:
        """Answer one call, by the last part of its name; raises ``FakeError``."""
        with self._lock:
            if self._failing is not None:
                raise self._failing
            match request:
                case DecideRequest():
                    return self._decide(request)
                case RecommendRequest():
                    return self._recommend(request)
                case ActivateRequest():
                    self.activated.add(request.decision_id)
                    return ActivateResponse()
                case ReportRequest():
                    return self._report(request)
                case DecideBatchRequest():
                    return self._decide_batch(request)
                case ReportBatchRequest():
                    reports = [self._report(item) for item in request.requests]
                    return ReportBatchResponse(items=[ReportBatchItem(response=answer) for answer in reports])
                case RecordRequest():
                    return self._record(request)
        raise FakeError(grpc.StatusCode.UNIMPLEMENTED, f"the fake has no {method}")

    def _decide_batch(self, request: DecideBatchRequest) -> DecideBatchResponse:
        reply = DecideBatchResponse()
        for item in request.requests:
            try:
                reply.items.add(response=self._decide(item))
            except FakeError as error:
                reply.items.add(error=Status(code=code_pb2.INVALID_ARGUMENT, message=error.details()))
        return reply

    def _decide(self, request: DecideRequest) -> DecideResponse:
        known = self.answers.get(request.decision_id)
        if isinstance(known, DecideResponse):
            return known
        if all(action.excluded for action in request.actions):
            raise FakeError(grpc.StatusCode.INVALID_ARGUMENT, "actions: give at least one that is not excluded")
        vector = self._vector(request)
        chosen = draw(request.decision_id, _SALT, vector)
        answer = DecideResponse(
            decision_id=request.decision_id,
            action=request.actions[chosen].id,
            action_index=chosen,
            propensity=vector[chosen],
            probabilities=vector,
            policy_version=VERSION,
        )
        self.requests[request.decision_id] = request
        self.answers[request.decision_id] = answer
        return answer

    def _vector(self, request: DecideRequest) -> list[float]:
        given = self._decides.get(request.decision_point)
        if given is None:
            return uniform_vector(request)
        if isinstance(given, str):
            vector = [float(action.id == given) for action in request.actions]
        else:
            vector = [float(p) for p in (given(request) if callable(given) else given)]
        problem = vector_problem(vector, [not action.excluded for action in request.actions])
        if problem:
            raise FakeError(
                grpc.StatusCode.INVALID_ARGUMENT, f"what the fake shall decide at {request.decision_point}: {problem}"
            )
        return vector

    def _recommend(self, request: RecommendRequest) -> RecommendResponse:
        known = self.answers.get(request.decision_id)
        if isinstance(known, RecommendResponse):
            return known
        given = self._recommends.get(request.recommender)
        excluded = set(request.exclude)
        left = [item for item in (given or [item.id for item in request.candidates]) if item not in excluded]
        if not left:
            raise FakeError(
                grpc.StatusCode.INVALID_ARGUMENT, "no candidates; the fake has no catalogue: give it recommends"
            )
        answer = RecommendResponse(decision_id=request.decision_id, policy_version=VERSION)
        for slot in range(min(request.k or len(left), len(left))):
            uniform = [1.0 / len(left)] * len(left)
            place = 0 if given is not None else draw(f"{request.decision_id}/{slot}", _SALT, uniform)
            propensity = 1.0 if given is not None else uniform[place]
            answer.items.append(RecommendedItem(item=left.pop(place), propensity=propensity))
        self.requests[request.decision_id] = request
        self.answers[request.decision_id] = answer
        return answer

    def _report(self, request: ReportRequest) -> ReportResponse:
        if request.outcome_id not in self._outcome_ids:
            self._outcome_ids.add(request.outcome_id)
            self.outcomes.append(request)
        return ReportResponse(outcome_id=request.outcome_id)

    def _record(self, request: RecordRequest) -> DecideBatchResponse:
        reply = DecideBatchResponse()
        for made in request.decisions:
            if all(made.request.decision_id != known.request.decision_id for known in self.handed_in):
                self.handed_in.append(made)
            reply.items.add(
                response=DecideResponse(
                    decision_id=made.request.decision_id,
                    action_index=made.chosen,
                    probabilities=made.probabilities,
                    fallback=FALLBACK_REASON_CLIENT,
                )
            )
        return reply


class _Channel:
    """A channel that ends in the fake."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def unary_unary(self, method: str, *_: object, **__: object) -> Callable[..., Message]:
        return lambda request, timeout=None: self._engine.call(method, request)

    def stream_stream(self, method: str, *_: object, **__: object) -> None:
        """The client has no streams."""

    def close(self) -> None:
        """There is nothing to close."""


class _AsyncChannel:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def unary_unary(self, method: str, *_: object, **__: object) -> Callable[..., Awaitable[Message]]:
        async def call(request: Message, timeout: float | None = None) -> Message:
            return self._engine.call(method, request)

        return call

    def stream_stream(self, method: str, *_: object, **__: object) -> None:
        """The client has no streams."""

    async def close(self, grace: float | None) -> None:
        """There is nothing to close."""


class FakeClient(LeewayClient):
    """The client for threads over a fake engine, kept as ``engine``; it does not retry unless asked to."""

    def __init__(
        self, engine: FakeEngine | None = None, *, retry_s: float = 0.0, fallback: Fallback | None = None
    ) -> None:
        self.engine = engine or FakeEngine()
        channel = cast(grpc.Channel, _Channel(self.engine))
        super().__init__("fake", retry_s=retry_s, fallback=fallback, channel=channel)


class AsyncFakeClient(AsyncClient):
    """The client for asyncio over a fake engine."""

    def __init__(
        self, engine: FakeEngine | None = None, *, retry_s: float = 0.0, fallback: Fallback | None = None
    ) -> None:
        self.engine = engine or FakeEngine()
        channel = cast(grpc.aio.Channel, _AsyncChannel(self.engine))
        super().__init__("fake", retry_s=retry_s, fallback=fallback, channel=channel)
