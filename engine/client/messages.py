"""What a client sends and gets as plain Python values, and the messages that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from engine.api.leeway.v1 import service_pb2
from engine.records import Action, Features, Numbers, Texts, Value, fallback_name, new_id

Plain = float | int | str | Sequence[float] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An action as a caller describes it."""

    id: str
    features: Mapping[str, Plain] | None = None
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller does by itself, where its own choice acts: the index of the action, and what it was drawn from."""

    index: int
    probabilities: Sequence[float] = ()  # in the order of the actions; empty: it was not drawn


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer: the action, how likely it was, and where it comes from."""

    decision_id: str
    action: str
    propensity: float
    probabilities: tuple[float, ...]
    policy_version: str  # empty where the client decided by itself
    fallback: str  # "none", or why the policy's oracle was not asked; "client": no server was reached
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
    retry_after_s: float | None = None  # None: it is wrong, and would be refused again


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
    choice: Choice | None = None,
    *,
    defer_activation: bool = False,
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
        choice=None if choice is None else service_pb2.Choice(chosen=choice.index, probabilities=choice.probabilities),
        defer_activation=defer_activation,
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


def report_request(
    decision_id: str,
    value: float,
    *,
    point: str = "",
    outcome_id: str | None = None,
    time_ms: int = 0,
    task: str = "",
    item: str = "",
    slot: int | None = None,
) -> service_pb2.ReportRequest:
    """Build a report of an outcome; without an id the outcome gets a new one, so that it counts once."""
    if not isinstance(decision_id, str):
        raise TypeError(f"decision_id is {decision_id!r}; give the text decided.decision_id")
    return service_pb2.ReportRequest(
        decision_id=decision_id,
        outcome_id=outcome_id or new_id(),
        value=value,
        time_ms=time_ms,
        decision_point=point,
        task=task,
        item=item,
        slot=slot,
    )


def activate_request(decision_id: str, *, point: str = "", time_ms: int = 0) -> service_pb2.ActivateRequest:
    """Build word that a deferred decision is acted on."""
    if not isinstance(decision_id, str):
        raise TypeError(f"decision_id is {decision_id!r}; give the text decided.decision_id")
    return service_pb2.ActivateRequest(decision_id=decision_id, decision_point=point, time_ms=time_ms)


def decided(answer: service_pb2.DecideResponse) -> Decided:
    """Return an answer as plain values."""
    return Decided(
        decision_id=answer.decision_id,
        action=answer.action,
        propensity=answer.propensity,
        probabilities=tuple(answer.probabilities),
        policy_version=answer.policy_version,
        fallback=fallback_name(answer.fallback),
        unrecorded=(answer.unrecorded_detail or "no reason given") if answer.unrecorded else "",
    )


def recommended(answer: service_pb2.RecommendResponse) -> Recommended:
    """Return a list as plain values."""
    return Recommended(
        decision_id=answer.decision_id,
        items=tuple(RecommendedItem(item.item, item.propensity, item.score) for item in answer.items),
        policy_version=answer.policy_version,
        fallback=fallback_name(answer.fallback),
        unrecorded=(answer.unrecorded_detail or "no reason given") if answer.unrecorded else "",
    )


def decided_items(reply: service_pb2.DecideBatchResponse) -> list[Decided | Refused]:
    """Return the answers of a batch, in the order of its requests."""
    return [
        decided(item.response) if item.WhichOneof("result") == "response" else refused(item.error)
        for item in reply.items
    ]


def reported_items(reply: service_pb2.ReportBatchResponse) -> list[str | Refused]:
    """Return the outcome ids of a batch, in the order of its requests."""
    return [
        item.response.outcome_id if item.WhichOneof("result") == "response" else refused(item.error)
        for item in reply.items
    ]


def refused(status: Status) -> Refused:
    """Return why an item was refused, and when it may be sent again."""
    after_s = retry_delay_s(status)
    if after_s is None and status.code in (code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED):
        after_s = 0.0
    return Refused(status.code, status.message, after_s)


def retry_delay_s(status: Status) -> float | None:
    """Return after how many seconds the server wants to be asked again; ``None``: it says nothing of it."""
    info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if _unpacked(detail, info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None


def _unpacked(detail: Message, into: Message) -> bool:
    return bool(detail.Unpack(into))  # type: ignore[attr-defined]
