"""The serving core: from a request to a recorded decision. It knows no transport, no clock and no file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import repeat
from typing import cast

from google.protobuf.message import DecodeError

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.api.leeway.v1.service_pb2 import (
    ActivateRequest,
    ClientDecision,
    DecideRequest,
    DecideResponse,
    RecommendRequest,
    RecommendResponse,
    ReportRequest,
)
from engine.config import DecisionPoint, LimitsConfig, Recommender
from engine.effort import Effort
from engine.errors import InvalidRequest, LeewayError, UnknownDecisionPoint
from engine.policy import Policy
from engine.recommender.outcomes import outcome_problem
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import recommend
from engine.recommender.recommend import response as list_response
from engine.records import Decision, Outcome, new_id
from engine.sealed import SealedDecision
from engine.serving.answers import Activity, Answer, Answers, Claim
from engine.serving.callers_decision import mode_of
from engine.serving.client_decision import client_decision, taken_as_made
from engine.serving.deciding import Asked, Slot, response
from engine.serving.direct import Direct
from engine.serving.limits import Limits
from engine.serving.prepared import Prepared
from engine.serving.seams import Observer, Recorder
from engine.serving.stages import StageTimes


@dataclass
class RecommenderSlot(Activity):
    """One recommender in this process."""

    name: str
    recommender: Recommender
    policy: RecommenderPolicy


class DecisionService:
    """Decisions and reports of all decision points and recommenders of a process.

    Parameters
    ----------
    points
        The configured decision points.
    policies
        The policy that each decision point starts with.
    recorder
        Where decisions and outcomes go.
    observer
        Is told of every decision.
    remembered
        How many recent decisions are known by id, so that a retry gets the same answer.
    answer_unrecorded
        What becomes of a decision that the log does not take: true: it is answered, and flagged; false: refused.
    recommenders
        The policy that each recommender starts with, and its configuration now.
    limits
        How much a request may carry.
    """

    def __init__(
        self,
        points: Mapping[str, DecisionPoint],
        policies: Mapping[str, Policy],
        recorder: Recorder,
        observer: Observer,
        remembered: int = 100_000,
        *,
        answer_unrecorded: bool = False,
        recommenders: Mapping[str, tuple[Recommender, RecommenderPolicy]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits(LimitsConfig())
        self.slots = {name: Slot(name, point, policies[name]) for name, point in points.items()}
        self.recommenders = {name: RecommenderSlot(name, *both) for name, both in (recommenders or {}).items()}
        self.times = StageTimes()
        self._recorder = recorder
        self._answers = Answers(recorder, observer, remembered, answer_unrecorded=answer_unrecorded, times=self.times)
        self._prepared = Prepared()

    def slot(self, name: str) -> Slot:
        """Return a decision point's slot, or raise ``UnknownDecisionPoint``."""
        slot = self.slots.get(name)
        if slot is None:
            if name in self.recommenders:
                raise InvalidRequest("decision_point", f"{name!r} is a recommender; call Recommend")
            raise UnknownDecisionPoint(name, sorted(self.slots))
        return slot

    def recommender(self, name: str) -> RecommenderSlot:
        """Return a recommender's slot, or raise ``UnknownDecisionPoint``."""
        slot = self.recommenders.get(name)
        if slot is None:
            if name in self.slots:
                raise InvalidRequest("recommender", f"{name!r} is a decision point; call Decide")
            raise UnknownDecisionPoint(name, sorted(self.recommenders), field="recommender")
        return slot

    def swap(self, policy: Policy | RecommenderPolicy) -> None:
        """Let another policy serve from the next decision on. One assignment: no decision waits for it."""
        if isinstance(policy, Policy):
            self.slot(policy.name).policy = policy
        else:
            self.recommender(policy.name).policy = policy

    def remember(self, decision: Decision) -> None:
        """Know a decision that is already in the log, as after a restart; one that was answered since stays."""
        self._answers.remember(decision, list_response if decision.HasField("slate") else response)

    def decide(self, request: DecideRequest, now_ms: int, *, effort: Effort = Effort.FULL) -> Future[DecideResponse]:
        """Decide and record; see :meth:`Answers.answer`."""
        slot = self.slot(request.decision_point)
        self.limits.decide(request)
        answer = self._answers.answer(
            slot.name,
            slot,
            request.decision_id,
            lambda decision_id: slot.decide(request, decision_id, now_ms, self.times, effort=effort),
            response,
        )
        return cast("Future[DecideResponse]", answer)

    def answer(
        self, request: DecideRequestParts, now_ms: int, *, effort: Effort = Effort.FULL
    ) -> bytes | Future[DecideResponse]:
        """Decide and record as :meth:`decide` does; returns the serialized answer where it is known at once."""
        slot = self.slots.get(request.decision_point)
        direct = slot.direct(self.limits) if slot is not None else None
        if slot is not None and direct is not None:
            decision_id = request.decision_id
            made = self._prepared.take(request, direct) if effort.scores else None
            if made is None:
                made = direct.make(request, decision_id or new_id(), now_ms, self.times, effort)
            if made is not None:
                return self._answered(slot, made, given=bool(decision_id))
        return self.decide(whole(request), now_ms, effort=effort)

    def prepare(self, requests: Sequence[DecideRequestParts], now_ms: int) -> None:
        """Make the decisions that the next calls of :meth:`answer` will ask for, those of one policy in one matrix.

        They are as those calls would make them, and nothing is recorded. What is not asked for is forgotten by the next
        call of this.
        """
        self._prepared.clear()
        by_point: dict[str, list[DecideRequestParts]] = {}
        for request in requests:
            by_point.setdefault(request.decision_point, []).append(request)
        for name, its in by_point.items():
            slot = self.slots.get(name)
            direct = slot.direct(self.limits) if slot is not None and len(its) > 1 else None
            if direct is not None:
                ids = [request.decision_id or new_id() for request in its]
                self._prepared.keep(direct, its, direct.make_each(its, ids, now_ms, self.times))

    def _answered(self, slot: Slot, made: SealedDecision, *, given: bool) -> bytes | Future[DecideResponse]:
        answer: bytes | Future[Answer]
        if given:
            answer = self._answers.answer(slot.name, slot, made.decision_id, lambda _: made, response)
        else:
            [answer] = self._answers.record_sealed(slot.name, slot, [made], response)
        return cast("bytes | Future[DecideResponse]", answer)

    def answer_each(
        self, requests: Sequence[DecideRequestParts], now_ms: int, *, effort: Effort = Effort.FULL, data: bytes = b""
    ) -> list[bytes | Future[DecideResponse] | Exception]:
        """Decide and record many, each as :meth:`answer` would; those of one policy are scored in one matrix.

        What :meth:`answer` would raise at once stands in the place of its answer. ``data``: the requests serialized,
        each as in a ``DecideBatchRequest``, where that is known: then those that are alike are read all at once.
        """
        its = self._answer_alike(requests, data, now_ms) if data and effort.scores else None
        if its is not None:
            return its
        answers: dict[int, bytes | Future[DecideResponse] | Exception] = {}
        by_point: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_point.setdefault(request.decision_point, []).append(place)
        for name, places in by_point.items():
            slot = self.slots.get(name)
            direct = slot.direct(self.limits) if slot is not None and effort.scores else None
            if slot is not None and direct is not None:
                answers.update(self._answer_directly(slot, direct, requests, places, now_ms))
        rest = [place for place in range(len(requests)) if place not in answers]
        if rest:
            try:
                wholes = [whole(requests[place]) for place in rest]
            except InvalidRequest as error:
                answers.update(dict.fromkeys(rest, error))
            else:
                answers.update(zip(rest, self.decide_each(wholes, now_ms, effort=effort), strict=True))
        return [answers[place] for place in range(len(requests))]

    def _answer_alike(
        self, requests: Sequence[DecideRequestParts], data: bytes, now_ms: int
    ) -> list[bytes | Future[DecideResponse] | Exception] | None:
        """Return the answers of requests that differ in nothing but their numbers; ``None``: these do not."""
        slot = self.slots.get(requests[0].decision_point)
        direct = slot.direct(self.limits) if slot is not None else None
        if slot is None or direct is None:
            return None
        made = direct.make_alike(requests, data, [new_id() for _ in requests], now_ms, self.times)
        if made is None:
            return None
        answers = self._answers.record_sealed(slot.name, slot, made, response)
        return cast("list[bytes | Future[DecideResponse] | Exception]", answers)

    def _answer_directly(
        self,
        slot: Slot,
        direct: Direct,
        requests: Sequence[DecideRequestParts],
        places: Sequence[int],
        now_ms: int,
    ) -> dict[int, bytes | Future[DecideResponse] | Exception]:
        """Return the answers of one slot by place; those are missing that have to go the long way."""
        answers: dict[int, bytes | Future[DecideResponse] | Exception] = {}
        given = [requests[place].decision_id for place in places]
        ids = [decision_id or new_id() for decision_id in given]
        made = direct.make_each([requests[place] for place in places], ids, now_ms, self.times)
        fresh: list[tuple[int, SealedDecision]] = []
        for place, decision_id, decision in zip(places, given, made, strict=True):
            if decision is None:
                continue
            if not decision_id:
                fresh.append((place, decision))
                continue
            try:
                answers[place] = self._answered(slot, decision, given=True)
            except Exception as error:
                answers[place] = error
        if fresh:
            its = self._answers.record_sealed(slot.name, slot, [decision for _, decision in fresh], response)
            for (place, _), answer in zip(fresh, its, strict=True):
                answers[place] = cast("bytes | Future[DecideResponse]", answer)
        return answers

    def record(self, made: ClientDecision, now_ms: int) -> Future[DecideResponse]:
        """Record a decision that a client made by itself; see :func:`client_decision` and :meth:`Answers.answer`."""
        slot = self.slot(made.request.decision_point)
        self.limits.decide(made.request)
        decision = client_decision(slot.policy, made, now_ms, mode_of(slot.point))
        answer = self._answers.answer(slot.name, slot, decision.decision_id, lambda _: decision, response)
        return taken_as_made(decision, cast("Future[DecideResponse]", answer))

    def decide_each(
        self, requests: Sequence[DecideRequest], now_ms: int, *, effort: Effort = Effort.FULL
    ) -> list[Future[DecideResponse] | Exception]:
        """Decide and record many, each as :meth:`decide` would; those of one policy are scored in one matrix.

        What :meth:`decide` would raise at once stands in the place of its future.
        """
        answers: list[Future[Answer] | Exception] = []
        claimed: dict[str, list[tuple[int, Claim]]] = {}
        for place, request in enumerate(requests):
            try:
                name = self.slot(request.decision_point).name
                self.limits.decide(request)
                claim = self._answers.claim(name, request.decision_id)
            except LeewayError as error:
                answers.append(error)
                continue
            if isinstance(claim, Claim):
                claimed.setdefault(name, []).append((place, claim))
                answers.append(claim.answer)
            else:
                answers.append(claim)
        for name, its in claimed.items():
            for place, failure in self._decide_claimed(self.slots[name], its, requests, now_ms, effort=effort):
                answers[place] = failure
        return cast("list[Future[DecideResponse] | Exception]", answers)

    def _decide_claimed(
        self,
        slot: Slot,
        claims: Sequence[tuple[int, Claim]],
        requests: Sequence[DecideRequest],
        now_ms: int,
        *,
        effort: Effort,
    ) -> Iterator[tuple[int, Exception]]:
        """Make and record the decisions of one slot; yield the places of those that cannot be made, and why."""
        fresh: list[Asked] = [(requests[place], claim.decision_id) for place, claim in claims if claim.kept is None]
        made: Iterator[Decision | Exception]
        try:
            made = iter(slot.decide_each(fresh, now_ms, self.times, effort=effort))
        except Exception as surprise:  # who waits for one of the ids must hear of it
            made = repeat(surprise)
        for place, claim in claims:
            decision = claim.kept or next(made)
            if isinstance(decision, Decision):
                try:
                    self._answers.record(slot.name, slot, claim, decision, response)
                except Exception as error:
                    yield place, error
            else:
                self._answers.abandon(claim, decision)
                yield place, decision

    def recommend(
        self, request: RecommendRequest, now_ms: int, *, effort: Effort = Effort.FULL
    ) -> Future[RecommendResponse]:
        """Rank and record; see :meth:`Answers.answer`."""
        slot = self.recommender(request.recommender)
        self.limits.recommend(request)
        answer = self._answers.answer(
            slot.name,
            slot,
            request.decision_id,
            lambda decision_id: recommend(slot.policy, request, decision_id, now_ms, effort=effort),
            list_response,
        )
        return cast("Future[RecommendResponse]", answer)

    def report(self, request: ReportRequest, now_ms: int) -> tuple[str, Future[None]]:
        """Record an outcome; returns its id, and a future that ends once it is safe in the log."""
        if not request.decision_id:
            raise InvalidRequest("decision_id", "is empty; name the decision that the outcome belongs to")
        self.limits.report(request)
        if not math.isfinite(request.value):
            raise InvalidRequest("value", f"is {request.value}; send a finite number")
        if request.time_ms < 0:
            raise InvalidRequest("time_ms", f"is {request.time_ms}; send milliseconds since 1970, or 0 for now")
        _check_outcome(request, self.slots, self.recommenders)
        outcome = Outcome(
            decision_id=request.decision_id,
            decision_point=request.decision_point,
            outcome_id=request.outcome_id or new_id(),
            time_ms=request.time_ms or now_ms,
            value=request.value,
            task=request.task,
            item=request.item,
            slot=request.slot if request.HasField("slot") else None,
        )
        return outcome.outcome_id, self._recorder.record([outcome])

    def activate(self, request: ActivateRequest, now_ms: int) -> Future[None]:
        """Record that a deferred decision is acted on; returns a future that ends once that is safe in the log."""
        if not request.decision_id:
            raise InvalidRequest("decision_id", "is empty; name the decision that is acted on")
        self.limits.activate(request)
        if request.time_ms < 0:
            raise InvalidRequest("time_ms", f"is {request.time_ms}; send milliseconds since 1970, or 0 for now")
        if request.decision_point:
            self.slot(request.decision_point)
        activation = Outcome(
            decision_id=request.decision_id,
            decision_point=request.decision_point,
            time_ms=request.time_ms or now_ms,
            activation=True,
        )
        return self._recorder.record([activation])


def whole(request: DecideRequestParts) -> DecideRequest:
    """Return a request in full; raises ``InvalidRequest`` where its parts are no messages."""
    try:
        return DecideRequest.FromString(request.SerializeToString())
    except DecodeError as error:
        raise InvalidRequest("request", f"is no DecideRequest ({error}); send one") from None


def _check_outcome(
    request: ReportRequest, slots: Mapping[str, Slot], recommenders: Mapping[str, RecommenderSlot]
) -> None:
    """Raise ``InvalidRequest`` where the decision point that is named cannot have such an outcome."""
    name = request.decision_point
    if request.HasField("slot") and request.slot < 0:
        raise InvalidRequest("slot", f"is {request.slot}; slots are counted from 0")
    if name in recommenders:
        problem = outcome_problem(recommenders[name].recommender, request)
        if problem is not None:
            raise InvalidRequest(*problem)
    elif name in slots:
        if request.task or request.item or request.HasField("slot"):
            raise InvalidRequest("task", f"{name!r} is no recommender; leave out task, item and slot")
        reward = slots[name].point.reward
        low, high = reward.range
        if reward.aggregation != "sum" and not low <= request.value <= high:
            raise InvalidRequest(
                "value", f"{request.value} lies outside the declared reward range {[low, high]}; correct one of them"
            )
    elif name:
        raise UnknownDecisionPoint(name, sorted({*slots, *recommenders}))
