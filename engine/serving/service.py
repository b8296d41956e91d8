"""The serving core: from a request to a recorded decision. It knows no transport, no clock and no file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import cast

from engine.api.leeway.v1.service_pb2 import (
    ClientDecision,
    DecideRequest,
    DecideResponse,
    RecommendRequest,
    RecommendResponse,
    ReportRequest,
)
from engine.config import DecisionPoint, LimitsConfig, Recommender
from engine.errors import InvalidRequest, UnknownDecisionPoint
from engine.policy import OracleFailure, Policy, uniform_pmf
from engine.recommender.outcomes import outcome_problem
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import recommend
from engine.recommender.recommend import response as list_response
from engine.records import (
    FALLBACK_REASON_DEADLINE,
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_ORACLE_FAILED,
    Decision,
    Outcome,
    new_id,
)
from engine.sampling import draw
from engine.serving.answers import Activity, Answers
from engine.serving.client_decision import client_decision, taken_as_made
from engine.serving.limits import Limits
from engine.serving.rollout import Rollout
from engine.serving.seams import Observer, Recorder


@dataclass
class Slot(Activity):
    """One decision point in this process: what serves it, and what it has done."""

    name: str
    point: DecisionPoint
    policy: Policy
    rollout: Rollout | None = None

    def decide(self, request: DecideRequest, decision_id: str, now_ms: int, *, hurry: bool) -> Decision:
        """Make one decision by the policy that acts on it, and note what one that looks on would have done."""
        rollout = self.rollout  # once: it may be swapped meanwhile
        challenged = rollout is not None and rollout.acts(request, decision_id)
        policy = rollout.policy if rollout is not None and challenged else self.policy
        made = decide(policy, request, decision_id, now_ms, hurry=hurry)
        if rollout is not None and not hurry:
            rollout.note(made)
        return made


@dataclass
class RecommenderSlot(Activity):
    """One recommender in this process."""

    name: str
    recommender: Recommender
    policy: RecommenderPolicy


def decide(policy: Policy, request: DecideRequest, decision_id: str, now_ms: int, *, hurry: bool = False) -> Decision:
    """Make one decision: a pure function of its arguments.

    Parameters
    ----------
    policy
        The policy that acts.
    request
        Context and actions; ``InvalidRequest`` is raised where they do not fit the schema.
    decision_id
        Decides the draw, together with the salt and the vector.
    now_ms
        Time of the decision.
    hurry
        Do not ask the oracle: too little time is left.
    """
    encoded = policy.encoder.encode(request.context, request.actions, request.packed_actions)
    fallback, detail, scores = FALLBACK_REASON_NONE, "", []
    if hurry:
        fallback, detail = FALLBACK_REASON_DEADLINE, "too little of the deadline was left to score"
        probabilities = uniform_pmf(encoded.available)
    else:
        try:
            prediction = policy.predict(encoded)
            probabilities = policy.pmf(prediction, encoded.available)
            scores = prediction.mean.tolist()
        except OracleFailure as failure:
            fallback, detail = FALLBACK_REASON_ORACLE_FAILED, str(failure)
            probabilities = uniform_pmf(encoded.available)
    vector: list[float] = probabilities.tolist()
    salt = policy.point.policy.salt
    return Decision(
        decision_id=decision_id,
        decision_point=policy.name,
        time_ms=now_ms,
        policy_version=policy.version,
        context=request.context,
        actions=request.actions,
        packed_actions=request.packed_actions,
        probabilities=vector,
        chosen=draw(decision_id, salt, vector),
        scores=scores,
        fallback=fallback,
        fallback_detail=detail,
        salt=salt,
    )


def response(decision: Decision, unrecorded: str | None = None) -> DecideResponse:
    """Return what the caller gets to see of a decision; ``unrecorded``: why it is not in the log."""
    return DecideResponse(
        decision_id=decision.decision_id,
        action=decision.actions[decision.chosen].id,
        action_index=decision.chosen,
        propensity=decision.probabilities[decision.chosen],
        probabilities=decision.probabilities,
        policy_version=decision.policy_version,
        fallback=decision.fallback,
        fallback_detail=decision.fallback_detail,
        unrecorded=unrecorded is not None,
        unrecorded_detail=unrecorded or "",
    )


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
        self._recorder = recorder
        self._answers = Answers(recorder, observer, remembered, answer_unrecorded=answer_unrecorded)

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

    def decide(self, request: DecideRequest, now_ms: int, *, hurry: bool = False) -> Future[DecideResponse]:
        """Decide and record; see :meth:`Answers.answer`."""
        slot = self.slot(request.decision_point)
        self.limits.decide(request)
        answer = self._answers.answer(
            slot.name,
            slot,
            request.decision_id,
            lambda decision_id: slot.decide(request, decision_id, now_ms, hurry=hurry),
            response,
        )
        return cast("Future[DecideResponse]", answer)

    def record(self, made: ClientDecision, now_ms: int) -> Future[DecideResponse]:
        """Record a decision that a client made by itself; see :func:`client_decision` and :meth:`Answers.answer`."""
        slot = self.slot(made.request.decision_point)
        self.limits.decide(made.request)
        decision = client_decision(slot.policy, made, now_ms)
        answer = self._answers.answer(slot.name, slot, decision.decision_id, lambda _: decision, response)
        return taken_as_made(decision, cast("Future[DecideResponse]", answer))

    def recommend(self, request: RecommendRequest, now_ms: int, *, hurry: bool = False) -> Future[RecommendResponse]:
        """Rank and record; see :meth:`Answers.answer`."""
        slot = self.recommender(request.recommender)
        self.limits.recommend(request)
        answer = self._answers.answer(
            slot.name,
            slot,
            request.decision_id,
            lambda decision_id: recommend(slot.policy, request, decision_id, now_ms, hurry=hurry),
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
