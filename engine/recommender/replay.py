"""Replay: recompute a logged list from its policy, bit for bit (law 1)."""

from __future__ import annotations

from engine.errors import InvalidRequest
from engine.policy import OracleFailure
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import logged_candidates, logged_user, rank
from engine.records import FALLBACK_REASON_NONE, Decision


def slate_mismatch(decision: Decision, policy: RecommenderPolicy) -> str:
    """Return what differs between a logged list and its recomputation; empty where nothing does.

    Scores, vectors and draws are computed again from the logged candidates and the policy's snapshot and compared
    without tolerance. A fallback, and a list before any training, is held to the uniform draw.
    """
    if (decision.decision_point, decision.policy_version) != (policy.name, policy.version):
        return f"{decision.decision_point} {decision.policy_version} was logged, this is {policy.name} {policy.version}"
    if decision.salt != policy.recommender.slate.salt:
        return f"salt {decision.salt!r} was logged, the policy's is {policy.recommender.slate.salt!r}"
    slate = decision.slate
    catalogue = "" if policy.catalogue is None else policy.catalogue.digest
    if slate.catalogue not in ("", catalogue):
        return f"catalogue {slate.catalogue!r} was logged, the policy's is {catalogue!r}"
    try:
        candidates = logged_candidates(policy, decision)
        asked = policy.model is not None and decision.fallback == FALLBACK_REASON_NONE
        user = logged_user(policy, decision) if asked else None
        ranked = rank(policy, user, candidates, len(slate.items), decision.decision_id)
    except InvalidRequest as error:
        return f"request does not fit the policy's configuration: {error}"
    except OracleFailure as failure:
        return f"model fails now, and did not then: {failure}"
    expected = [] if ranked.expected is None else ranked.expected.tolist()
    found = (
        ("scores", list(decision.scores), expected),
        ("probabilities", list(decision.probabilities), ranked.slate.vectors[0].tolist()),
        ("items", list(slate.items), list(ranked.slate.actions)),
        ("propensities", list(slate.propensities), list(ranked.slate.propensities)),
        ("first item", decision.chosen, ranked.slate.actions[0]),
    )
    for name, logged, again in found:
        if logged != again:
            return f"{name} {logged} were logged, {again} recomputed"
    return ""
