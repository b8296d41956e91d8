"""The serving core: from a request to a recorded decision. It knows no transport, no clock and no file."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse, ReportRequest
from engine.config import DecisionPoint
from engine.errors import InvalidRequest, LogError, UnknownDecisionPoint
from engine.policy import OracleFailure, Policy, uniform_pmf
from engine.records import (
    FALLBACK_REASON_DEADLINE,
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_ORACLE_FAILED,
    Decision,
    Outcome,
    new_id,
)
from engine.sampling import draw
from engine.serving.rollout import Rollout
from engine.serving.seams import Observer, Recorder
from engine.serving.unrecorded import UnrecordedDecisions

MAX_ID_LENGTH = 256


@dataclass
class Slot:
    """One decision point in this process: what serves it, and what it has done."""

    name: str
    point: DecisionPoint
    policy: Policy
    rollout: Rollout | None = None
    decisions: int = 0
    fallbacks: int = 0
    policy_error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, request: DecideRequest, decision_id: str, now_ms: int, *, hurry: bool) -> Decision:
        """Make one decision by the policy that acts on it, and note what one that looks on would have done."""
        rollout = self.rollout  # once: it may be swapped meanwhile
        challenged = rollout is not None and rollout.acts(request, decision_id)
        policy = rollout.policy if rollout is not None and challenged else self.policy
        made = decide(policy, request, decision_id, now_ms, hurry=hurry)
        if rollout is not None and not hurry:
            rollout.note(made)
        return made

    def count(self, decision: Decision) -> None:
        """Count a recorded decision."""
        with self.lock:
            self.decisions += 1
            self.fallbacks += decision.fallback != FALLBACK_REASON_NONE


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
    """Decisions and reports of all decision points of a process.

    Parameters
    ----------
    policies
        The policy that each decision point starts with.
    points
        The configured decision points.
    recorder
        Where decisions and outcomes go.
    observer
        Is told of every decision.
    remembered
        How many recent decisions are known by id, so that a retry gets the same answer.
    answer_unrecorded
        What becomes of a decision that the log does not take: true: it is answered, and flagged; false: refused.
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
    ) -> None:
        self.slots = {name: Slot(name, point, policies[name]) for name, point in points.items()}
        self._recorder = recorder
        self._observer = observer
        self._remembered = remembered
        self._answer_unrecorded = answer_unrecorded
        self._unrecorded = UnrecordedDecisions()
        self._recent: OrderedDict[str, tuple[str, Future[DecideResponse]]] = OrderedDict()
        self._lock = threading.Lock()

    def slot(self, name: str) -> Slot:
        """Return a decision point's slot, or raise ``UnknownDecisionPoint``."""
        slot = self.slots.get(name)
        if slot is None:
            raise UnknownDecisionPoint(name, sorted(self.slots))
        return slot

    def swap(self, policy: Policy) -> None:
        """Let another policy serve from the next decision on. One assignment: no decision waits for it."""
        self.slot(policy.name).policy = policy

    def remember(self, decision: Decision) -> None:
        """Know a decision that is already in the log, as after a restart; one that was answered since stays."""
        known: Future[DecideResponse] = Future()
        known.set_result(response(decision))
        with self._lock:
            self._recent.setdefault(decision.decision_id, (decision.decision_point, known))
            self._trim()

    def decide(self, request: DecideRequest, now_ms: int, *, hurry: bool = False) -> Future[DecideResponse]:
        """Decide and record; the future ends with the answer once the decision is safe in the log.

        A request with the id of a recent decision gets that decision's answer, and nothing is recorded; unless the
        log could not take it then: it is tried again. Raises ``InvalidRequest`` at once. Where the decision cannot be
        recorded, the answer is flagged, or the future raises ``LogError`` (see ``answer_unrecorded``): then it was not
        made, and a retry decides anew.
        """
        slot = self.slot(request.decision_point)
        decision_id = request.decision_id
        if len(decision_id) > MAX_ID_LENGTH:
            raise InvalidRequest("decision_id", f"is longer than {MAX_ID_LENGTH} characters")
        answer: Future[DecideResponse] = Future()
        decision: Decision | None = None
        if decision_id:
            with self._lock:
                known = self._recent.get(decision_id)
                if known is not None and known[0] != slot.name:
                    raise InvalidRequest(
                        "decision_id", f"{decision_id!r} belongs to a decision of {known[0]!r}; use an id once"
                    )
                if known is not None:
                    decision = self._unrecorded.take(decision_id)
                    if decision is None:
                        return known[1]
                self._recent[decision_id] = (slot.name, answer)
                self._trim()
        try:
            again = decision is not None
            made = decision or slot.decide(request, decision_id or new_id(), now_ms, hurry=hurry)
            recording = self._recorder.record([made])
        except BaseException as error:
            self._forget(decision_id)
            answer.set_exception(error)  # a retry that came in between waits for this future
            raise
        recording.add_done_callback(lambda outcome: self._recorded(slot, made, answer, outcome.exception(), again))
        return answer

    def _recorded(
        self, slot: Slot, decision: Decision, answer: Future[DecideResponse], error: BaseException | None, again: bool
    ) -> None:
        """End an answer when it is known whether the log has the decision; ``again``: it was answered before."""
        if error is None:
            slot.count(decision)
            answer.set_result(response(decision))
        elif self._answer_unrecorded and isinstance(error, LogError):
            with self._lock:
                self._unrecorded.keep(decision)
                # Known also where the id was made here: the caller has it now, and may ask again.
                self._recent[decision.decision_id] = (slot.name, answer)
            answer.set_result(response(decision, str(error)))
        else:
            self._forget(decision.decision_id)
            answer.set_exception(error)
            return
        with self._lock:
            self._trim()
        if not again:
            self._observer.decision(decision)
            if error is not None:
                self._observer.unrecorded(slot.name)

    def report(self, request: ReportRequest, now_ms: int) -> tuple[str, Future[None]]:
        """Record an outcome; returns its id, and a future that ends once it is safe in the log."""
        if not request.decision_id:
            raise InvalidRequest("decision_id", "is empty; name the decision that the outcome belongs to")
        for name, value in (("decision_id", request.decision_id), ("outcome_id", request.outcome_id)):
            if len(value) > MAX_ID_LENGTH:
                raise InvalidRequest(name, f"is longer than {MAX_ID_LENGTH} characters")
        if not math.isfinite(request.value):
            raise InvalidRequest("value", f"is {request.value}; send a finite number")
        if request.time_ms < 0:
            raise InvalidRequest("time_ms", f"is {request.time_ms}; send milliseconds since 1970, or 0 for now")
        if request.decision_point:
            reward = self.slot(request.decision_point).point.reward
            low, high = reward.range
            if reward.aggregation != "sum" and not low <= request.value <= high:
                raise InvalidRequest(
                    "value",
                    f"{request.value} lies outside the declared reward range {[low, high]}; correct one of them",
                )
        outcome = Outcome(
            decision_id=request.decision_id,
            decision_point=request.decision_point,
            outcome_id=request.outcome_id or new_id(),
            time_ms=request.time_ms or now_ms,
            value=request.value,
        )
        return outcome.outcome_id, self._recorder.record([outcome])

    def _forget(self, decision_id: str) -> None:
        if decision_id:
            with self._lock:
                self._recent.pop(decision_id, None)

    def _trim(self) -> None:
        while len(self._recent) > self._remembered:
            decision_id, (_, answer) = next(iter(self._recent.items()))
            if not answer.done():
                return  # forgotten now, a retry would record it a second time
            del self._recent[decision_id]
            self._unrecorded.take(decision_id)
