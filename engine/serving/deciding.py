"""From requests to decisions: what a decision point does, one at a time or many in one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse
from engine.config import DecisionPoint
from engine.effort import Effort
from engine.errors import InvalidRequest
from engine.features import Encoded
from engine.policy import OracleFailure, Policy, uniform_pmf
from engine.prediction import Prediction
from engine.records import (
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_ORACLE_FAILED,
    Decision,
)
from engine.sampling import draw
from engine.sealed import SealedDecision
from engine.serving.answers import Activity
from engine.serving.callers_decision import callers_decision, mode_of
from engine.serving.direct import Direct
from engine.serving.limits import Limits
from engine.serving.rollout import Rollout
from engine.serving.stages import StageTimes

#: A request, and the id that its decision gets.
Asked = tuple[DecideRequest, str]


@dataclass
class Slot(Activity):
    """One decision point in this process: what serves it, and what it has done."""

    name: str
    point: DecisionPoint
    policy: Policy
    rollout: Rollout | None = None
    _direct: Direct | None = field(default=None, init=False, repr=False)

    def direct(self, limits: Limits) -> Direct | None:
        """Return the short way to a decision; ``None`` while more is to be done than to ask the policy that serves."""
        if self.rollout is not None or self.point.mode != "online":
            return None
        policy, direct = self.policy, self._direct
        if direct is None or direct.policy is not policy:
            self._direct = direct = Direct(policy, limits)
        return direct

    def decide(
        self, request: DecideRequest, decision_id: str, now_ms: int, times: StageTimes, *, effort: Effort
    ) -> Decision:
        """Make one decision by the policy that acts on it, and note what one that looks on would have done.

        In a mode in which the caller's own choice acts, that is the decision.
        """
        if self.point.mode != "online":
            mode = mode_of(self.point)
            return callers_decision(self.policy, request, decision_id, now_ms, mode=mode, effort=effort, times=times)
        rollout = self.rollout  # once: it may be swapped meanwhile
        challenged = rollout is not None and rollout.acts(request, decision_id)
        policy = rollout.policy if rollout is not None and challenged else self.policy
        made = decide(policy, request, decision_id, now_ms, effort=effort, times=times)
        if rollout is not None and effort is Effort.FULL:
            rollout.note(made)
        return made

    def decide_each(
        self, asked: Sequence[Asked], now_ms: int, times: StageTimes, *, effort: Effort
    ) -> list[Decision | InvalidRequest]:
        """Make many decisions, each as :meth:`decide` would; those of one policy are scored in one matrix."""
        rollout, champion = self.rollout, self.policy
        made: list[Decision | InvalidRequest] = []
        if self.point.mode != "online":
            for request, decision_id in asked:
                try:
                    made.append(self.decide(request, decision_id, now_ms, times, effort=effort))
                except InvalidRequest as refused:
                    made.append(refused)
            return made
        if rollout is None or rollout.terms.mode != "canary":
            made = decide_each(champion, asked, now_ms, effort=effort, times=times)
        else:
            acts = [rollout.acts(request, decision_id) for request, decision_id in asked]
            parts = {
                challenged: iter(
                    decide_each(
                        rollout.policy if challenged else champion,
                        [one for one, its in zip(asked, acts, strict=True) if its is challenged],
                        now_ms,
                        effort=effort,
                        times=times,
                    )
                )
                for challenged in (False, True)
            }
            made = [next(parts[challenged]) for challenged in acts]
        if rollout is not None and effort is Effort.FULL:
            for decision in made:
                if isinstance(decision, Decision):
                    rollout.note(decision)
        return made


def decide(
    policy: Policy,
    request: DecideRequest,
    decision_id: str,
    now_ms: int,
    *,
    effort: Effort = Effort.FULL,
    times: StageTimes | None = None,
) -> Decision:
    """Make one decision: a pure function of its arguments, ``times`` apart.

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
    effort
        Whether the oracle is asked, and if not, why not.
    times
        Gets how long its stages took.
    """
    began = perf_counter_ns()
    encoded = policy.encoder.encode(request.context, request.actions, request.packed_actions)
    was_encoded = perf_counter_ns()
    prediction: Prediction | OracleFailure | None = None
    if effort.scores:
        try:
            prediction = policy.predict(encoded)
        except OracleFailure as failure:
            prediction = failure
    was_scored = perf_counter_ns()
    vector = _vector(policy, encoded, prediction)
    was_explored = perf_counter_ns()
    made = _decision(policy, request, decision_id, now_ms, prediction, vector, effort)
    if times is not None:
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()))
    return made


def decide_each(
    policy: Policy,
    asked: Sequence[Asked],
    now_ms: int,
    *,
    effort: Effort = Effort.FULL,
    times: StageTimes | None = None,
) -> list[Decision | InvalidRequest]:
    """Make many decisions, each exactly as :func:`decide` would, with the oracle asked once for all of them."""
    began = perf_counter_ns()
    encoded: list[Encoded | InvalidRequest] = []
    for request, _ in asked:
        try:
            encoded.append(policy.encoder.encode(request.context, request.actions, request.packed_actions))
        except InvalidRequest as refused:
            encoded.append(refused)
    good = [one for one in encoded if isinstance(one, Encoded)]
    if not good:
        return [one for one in encoded if isinstance(one, InvalidRequest)]
    was_encoded = perf_counter_ns()
    predictions = policy.predict_each(good) if effort.scores else [None] * len(good)
    was_scored = perf_counter_ns()
    vectors = iter([_vector(policy, one, prediction) for one, prediction in zip(good, predictions, strict=True)])
    was_explored = perf_counter_ns()
    each = iter(predictions)
    made = [
        one if isinstance(one, InvalidRequest) else _decision(policy, *ask, now_ms, next(each), next(vectors), effort)
        for one, ask in zip(encoded, asked, strict=True)
    ]
    if times is not None:
        times.add(0, (began, was_encoded, was_scored, was_explored, perf_counter_ns()), len(good))
    return made


def _vector(policy: Policy, encoded: Encoded, prediction: Prediction | OracleFailure | None) -> list[float]:
    """Return the vector to draw from; without a prediction that of the fallback."""
    available = encoded.available
    p = policy.pmf(prediction, available) if isinstance(prediction, Prediction) else uniform_pmf(available)
    vector: list[float] = p.tolist()
    return vector


def _decision(
    policy: Policy,
    request: DecideRequest,
    decision_id: str,
    now_ms: int,
    prediction: Prediction | OracleFailure | None,
    vector: list[float],
    effort: Effort,
) -> Decision:
    """Draw, and return the decision with all that it was drawn from."""
    fallback, detail = FALLBACK_REASON_NONE, ""
    scores: list[float] = []
    if isinstance(prediction, Prediction):
        scores = prediction.mean.tolist()
    elif prediction is None:
        fallback, detail = effort.fallback, effort.detail
    else:
        fallback, detail = FALLBACK_REASON_ORACLE_FAILED, str(prediction)
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
        deferred=request.defer_activation,
    )


def response(decision: Decision | SealedDecision, unrecorded: str | None = None) -> DecideResponse:
    """Return what the caller gets to see of a decision; ``unrecorded``: why it is not in the log."""
    if isinstance(decision, SealedDecision):
        answer = DecideResponse.FromString(decision.answer)
        answer.unrecorded = unrecorded is not None
        answer.unrecorded_detail = unrecorded or ""
        return answer
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
