"""Replay: recompute a logged decision from its policy, bit for bit (law 1)."""

from __future__ import annotations

from engine.errors import InvalidRequest
from engine.policy import OracleFailure, Policy, uniform_pmf
from engine.records import FALLBACK_REASON_CLIENT, FALLBACK_REASON_NONE, MODE_ONLINE, Decision
from engine.sampling import draw, vector_problem
from engine.serving.rollout import vector_of


def mismatch(decision: Decision, policy: Policy) -> str:
    """Return what differs between a logged decision and its recomputation; empty where nothing does.

    Scores, vector and draw are computed again from the logged request and the policy's snapshot and compared
    without tolerance. A fallback is held to the fallback's vector: its scores were never used. Of a decision that a
    client made by itself, the vector is its own, and the draw from it is computed again. Where the caller's own choice
    acted, nothing was drawn: the vector has to be one that this choice can come from.
    """
    if (decision.decision_point, decision.policy_version) != (policy.name, policy.version):
        return f"{decision.decision_point} {decision.policy_version} was logged, this is {policy.name} {policy.version}"
    try:
        encoded = policy.encoder.encode(decision.context, decision.actions, decision.packed_actions)
    except InvalidRequest as error:
        return f"request does not fit the policy's schema: {error}"
    if decision.mode != MODE_ONLINE:
        return _not_stated(decision, encoded.available.tolist())
    if decision.fallback == FALLBACK_REASON_CLIENT:
        chosen = draw(decision.decision_id, decision.salt, list(decision.probabilities))
        return "" if chosen == decision.chosen else f"action {decision.chosen} was logged, {chosen} drawn again"
    if decision.fallback == FALLBACK_REASON_NONE:
        try:
            prediction = policy.predict(encoded)
        except OracleFailure as failure:
            return f"oracle fails now, and did not then: {failure}"
        scores = prediction.mean.tolist()
        if scores != list(decision.scores):
            return f"scores {list(decision.scores)} were logged, {scores} recomputed"
        vector = policy.pmf(prediction, encoded.available).tolist()
    else:
        if decision.scores:
            return f"scores {list(decision.scores)} were logged, a fallback has none"
        vector = uniform_pmf(encoded.available).tolist()
    if vector != list(decision.probabilities):
        return f"probabilities {list(decision.probabilities)} were logged, {vector} recomputed"
    if decision.salt != policy.point.policy.salt:
        return f"salt {decision.salt!r} was logged, the policy's is {policy.point.policy.salt!r}"
    chosen = draw(decision.decision_id, decision.salt, vector)
    if chosen != decision.chosen:
        return f"action {decision.chosen} was logged, {chosen} drawn again"
    return ""


def _not_stated(decision: Decision, available: list[bool]) -> str:
    """Return why a caller cannot have stated such a choice; empty where it can."""
    if decision.scores:
        return f"scores {list(decision.scores)} were logged, a choice of the caller has none"
    problem = vector_problem(list(decision.probabilities), available)
    if problem:
        return f"the vector that the caller stated {problem}"
    chosen = decision.chosen
    if not (0 <= chosen < len(available) and decision.probabilities[chosen]):
        return f"action {chosen} was logged, and the vector that the caller stated cannot give it"
    return ""


def shadow_mismatch(decision: Decision, shadow: Policy) -> str:
    """Return what differs between the logged vector of a policy that looked on and its recomputation; else empty."""
    vector = vector_of(shadow, decision)
    if vector != list(decision.shadow_probabilities):
        return f"shadow probabilities {list(decision.shadow_probabilities)} were logged, {vector} recomputed"
    return ""
