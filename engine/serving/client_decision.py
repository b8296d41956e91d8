"""Decisions that clients made by themselves while no server could be reached, and hand in afterwards."""

from __future__ import annotations

from concurrent.futures import Future

from engine.api.leeway.v1.service_pb2 import ClientDecision, DecideResponse
from engine.errors import InvalidRequest
from engine.policy import Policy
from engine.records import FALLBACK_REASON_CLIENT, MODE_LOGGING_ONLY, MODE_ONLINE, Decision, Mode
from engine.sampling import draw, vector_problem
from engine.serving.callers_decision import callers_decision

_LONGEST_DETAIL = 1_000


def client_decision(policy: Policy, made: ClientDecision, now_ms: int, mode: Mode.ValueType = MODE_ONLINE) -> Decision:
    """Return the record of a decision that a client made: a pure function of its arguments.

    Nothing is taken on trust that can be computed: the action is drawn again from the vector. Where the caller's own
    choice acted, stated in the request, nothing was drawn: it is recorded as in a mode in which that acts.

    Parameters
    ----------
    policy
        What serves now; its schema has to take the request, and its version names the time in the record.
    made
        What the client did.
    now_ms
        A later time of the decision counts as this one: clocks differ.
    mode
        Of the decision point.

    Raises
    ------
    InvalidRequest
        Where the request does not fit the schema, the vector is none over the actions that are not excluded, or the
        action is not what is drawn from it, or not the choice that the request states.
    """
    request = made.request
    if not request.decision_id:
        raise InvalidRequest("request.decision_id", "is empty; send the id that the action was drawn with")
    if made.time_ms <= 0:
        raise InvalidRequest("time_ms", f"is {made.time_ms}; send when it was decided, in milliseconds since 1970")
    detail = made.detail[:_LONGEST_DETAIL]
    if request.HasField("choice") and not made.salt:
        acting = MODE_LOGGING_ONLY if mode == MODE_ONLINE else mode
        own = callers_decision(policy, request, request.decision_id, min(made.time_ms, now_ms), mode=acting)
        if (made.chosen, list(made.probabilities)) != (own.chosen, list(own.probabilities)):
            raise InvalidRequest("chosen", "is not the choice of the request, with its vector; send both as they acted")
        own.fallback, own.fallback_detail = FALLBACK_REASON_CLIENT, detail
        return own
    encoded = policy.encoder.encode(request.context, request.actions, request.packed_actions)
    vector = list(made.probabilities)
    problem = vector_problem(vector, encoded.available.tolist())
    if problem:
        raise InvalidRequest("probabilities", problem)
    drawn = draw(request.decision_id, made.salt, vector)
    if drawn != made.chosen:
        raise InvalidRequest("chosen", f"is {made.chosen}, and {drawn} is drawn for this id, salt and vector")
    return Decision(
        decision_id=request.decision_id,
        decision_point=policy.name,
        time_ms=min(made.time_ms, now_ms),
        policy_version=policy.version,
        context=request.context,
        actions=request.actions,
        packed_actions=request.packed_actions,
        probabilities=vector,
        chosen=made.chosen,
        fallback=FALLBACK_REASON_CLIENT,
        fallback_detail=detail,
        salt=made.salt,
        deferred=request.defer_activation,
    )


def taken_as_made(decision: Decision, answer: Future[DecideResponse]) -> Future[DecideResponse]:
    """Return the answer, or an error where the id is that of another decision, whose outcomes these would become."""
    checked: Future[DecideResponse] = Future()

    def check(ended: Future[DecideResponse]) -> None:
        error = ended.exception()
        if error is None:
            known = ended.result()
            if (known.action_index, list(known.probabilities)) != (decision.chosen, list(decision.probabilities)):
                error = InvalidRequest(
                    "request.decision_id", f"{decision.decision_id!r} belongs to another decision; use an id once"
                )
        if error is None:
            checked.set_result(known)
        else:
            checked.set_exception(error)

    answer.add_done_callback(check)
    return checked
