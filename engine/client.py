"""A typed client: plain Python values in, plain Python values out, retries that change nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.rpc.status_pb2 import Status

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.channel import open_channel
from engine.records import Action, Features, Numbers, Texts, Value, fallback_name, new_id

Q = TypeVar("Q")
A = TypeVar("A")
Plain = float | int | str | Sequence[float] | Sequence[str]
#: A server that ends cancels the calls that it had not begun; nobody else cancels a call of this client.
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An action as a caller describes it."""

    id: str
    features: Mapping[str, Plain] | None = None
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer: the action, how likely it was, and where it comes from."""

    decision_id: str
    action: str
    propensity: float
    probabilities: tuple[float, ...]
    policy_version: str
    fallback: str  # "none", or why the policy's oracle was not asked
    unrecorded: str = ""  # why it is not in the log and will not be learned from; empty: it is there


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One item of a list."""

    id: str
    propensity: float  # given the items before it
    score: float  # expected reward; 0 in a fallback, and before a model was trained


@dataclass(frozen=True, slots=True)
class Recommended:
    """A ranked list, best first, and where it comes from."""

    decision_id: str
    items: tuple[RecommendedItem, ...]
    policy_version: str
    fallback: str  # "none", or why the model was not asked
    unrecorded: str = ""  # why it is not in the log and will not be learned from; empty: it is there


@dataclass(frozen=True, slots=True)
class Refused:
    """One item of a batch that could not be served."""

    code: int
    message: str


def value_of(plain: Plain) -> Value:
    """Return the message form of a plain value.

    >>> value_of("NL").text
    'NL'
    """
    if plain is None:
        raise TypeError("a feature is None; leave it out where it is not known")
    if isinstance(plain, str):
        return Value(text=plain)
    if isinstance(plain, (int, float)):
        return Value(number=plain)
    if len(plain) and all(isinstance(entry, str) for entry in plain):
        return Value(texts=Texts(values=plain))  # type: ignore[arg-type]
    return Value(numbers=Numbers(values=plain))  # type: ignore[arg-type]


def _action(candidate: Candidate | str) -> Action:
    if isinstance(candidate, str):
        return Action(id=candidate)
    features = {name: value_of(plain) for name, plain in (candidate.features or {}).items()}
    return Action(id=candidate.id, features=features, excluded=candidate.excluded)


def decide_request(
    point: str,
    context: Mapping[str, Plain] | bytes,
    actions: Iterable[Candidate | str],
    decision_id: str | None = None,
) -> service_pb2.DecideRequest:
    """Build a request; ``context`` as bytes is the packed float32 form. Without an id it gets a new one."""
    if isinstance(actions, str):
        raise TypeError(f"actions is the text {actions!r}; give a list of candidates")
    features = (
        Features(packed=context)
        if isinstance(context, bytes)
        else Features(named={name: value_of(plain) for name, plain in context.items()})
    )
    return service_pb2.DecideRequest(
        decision_point=point,
        decision_id=decision_id or new_id(),
        context=features,
        actions=[_action(action) for action in actions],
    )


def _decided(answer: service_pb2.DecideResponse) -> Decided:
    return Decided(
        decision_id=answer.decision_id,
        action=answer.action,
        propensity=answer.propensity,
        probabilities=tuple(answer.probabilities),
        policy_version=answer.policy_version,
        fallback=fallback_name(answer.fallback),
        unrecorded=(answer.unrecorded_detail or "no reason given") if answer.unrecorded else "",
    )


def recommend_request(
    recommender: str,
    user: Mapping[str, Plain],
    candidates: Iterable[Candidate | str] = (),
    k: int = 0,
    exclude: Iterable[str] = (),
    decision_id: str | None = None,
) -> service_pb2.RecommendRequest:
    """Build a request; without candidates the whole catalogue is ranked, and without an id it gets a new one.

    A history without entries is left out, since an empty list could be one of numbers as well.
    """
    for name, given in (("candidates", candidates), ("exclude", exclude)):
        if isinstance(given, str):
            raise TypeError(f"{name} is the text {given!r}; give a list")
    return service_pb2.RecommendRequest(
        recommender=recommender,
        decision_id=decision_id or new_id(),
        user=Features(named={name: value_of(plain) for name, plain in user.items() if not _empty(plain)}),
        candidates=[_action(candidate) for candidate in candidates],
        k=k,
        exclude=exclude,
    )


def _empty(plain: Plain) -> bool:
    return isinstance(plain, Sequence) and not isinstance(plain, str) and not len(plain)


def _recommended(answer: service_pb2.RecommendResponse) -> Recommended:
    return Recommended(
        decision_id=answer.decision_id,
        items=tuple(RecommendedItem(item.item, item.propensity, item.score) for item in answer.items),
        policy_version=answer.policy_version,
        fallback=fallback_name(answer.fallback),
        unrecorded=(answer.unrecorded_detail or "no reason given") if answer.unrecorded else "",
    )


def _refused(status: Status) -> Refused:
    return Refused(status.code, status.message)


class LeewayClient:
    """A connection to a Leeway server.

    Every decision and outcome carries an id, made here where the caller gives none, so that a retry is
    answered with the first answer and recorded once.

    Parameters
    ----------
    target
        ``host:port``.
    timeout_s
        Deadline of one attempt.
    retry_s
        How long attempts are repeated while the server cannot be reached.
    credentials
        For TLS, as ``engine.channel.tls_credentials`` makes them; ``None``: plain text.
    token
        Sent with each call.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 2.0,
        retry_s: float = 10.0,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        self._channel = open_channel(target, options, credentials=credentials, token=token)
        self._stub = service_pb2_grpc.LeewayStub(self._channel)
        self._timeout_s = timeout_s
        self._retry_s = retry_s

    def decide(
        self,
        point: str,
        context: Mapping[str, Plain] | bytes,
        actions: Iterable[Candidate | str],
        decision_id: str | None = None,
    ) -> Decided:
        """Ask for one decision; raises ``grpc.RpcError`` with the server's reason."""
        return _decided(self._call(self._stub.Decide, decide_request(point, context, actions, decision_id)))

    def recommend(
        self,
        recommender: str,
        user: Mapping[str, Plain],
        candidates: Iterable[Candidate | str] = (),
        k: int = 0,
        exclude: Iterable[str] = (),
        decision_id: str | None = None,
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
        """
        request = recommend_request(recommender, user, candidates, k, exclude, decision_id)
        return _recommended(self._call(self._stub.Recommend, request))

    def decide_batch(self, requests: Iterable[service_pb2.DecideRequest]) -> list[Decided | Refused]:
        """Ask for many decisions at once (see ``decide_request``); items fail one by one."""
        reply = self._call(self._stub.DecideBatch, service_pb2.DecideBatchRequest(requests=requests))
        return [
            _decided(item.response) if item.WhichOneof("result") == "response" else _refused(item.error)
            for item in reply.items
        ]

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
        """Report an outcome and return its id; of a list, with its task, and the item or its slot (from 0)."""
        if not isinstance(decision_id, str):
            raise TypeError(f"decision_id is {decision_id!r}; give the text decided.decision_id")
        request = service_pb2.ReportRequest(
            decision_id=decision_id,
            outcome_id=outcome_id or new_id(),
            value=value,
            time_ms=time_ms,
            decision_point=point,
            task=task,
            item=item,
            slot=slot,
        )
        return self._call(self._stub.Report, request).outcome_id

    def report_batch(self, requests: Iterable[service_pb2.ReportRequest]) -> list[str | Refused]:
        """Report many outcomes; each should carry an outcome id, so that a retry is recorded once."""
        reply = self._call(self._stub.ReportBatch, service_pb2.ReportBatchRequest(requests=requests))
        return [
            item.response.outcome_id if item.WhichOneof("result") == "response" else _refused(item.error)
            for item in reply.items
        ]

    def _call(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        end = time.monotonic() + self._retry_s
        pause = 0.05
        while True:
            try:
                return method(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                if error.code() not in _RETRIED or time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
