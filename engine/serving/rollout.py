"""A challenger on trial: which decisions it acts on, and what it would have done of the others."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.config import Challenger
from engine.errors import InvalidRequest
from engine.policy import OracleFailure, Policy
from engine.records import Decision


def place(version: str, unit: str) -> float:
    """Return where a unit stands in [0, 1): a hash of it and of the challenger's version.

    With the version in it, another challenger acts on other units.

    >>> 0.0 <= place("g2.0-00000000", "user-7") < 1.0
    True
    """
    digest = blake2b(f"{version}\0{unit}".encode(), digest_size=8, person=b"leeway-rollout").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def vector_of(policy: Policy, decision: Decision) -> list[float]:
    """Return the vector that a policy would have drawn a decision from; empty where its oracle fails on it."""
    try:
        encoded = policy.encoder.encode(decision.context, decision.actions, decision.packed_actions)
        vector: list[float] = policy.pmf(policy.predict(encoded), encoded.available).tolist()
    except (OracleFailure, InvalidRequest):
        return []
    return vector


@dataclass(frozen=True, eq=False)
class Rollout:
    """A policy on trial beside the one that serves.

    Parameters
    ----------
    policy
        The challenger.
    terms
        How it is tried.
    """

    policy: Policy
    terms: Challenger

    def acts(self, request: DecideRequest, decision_id: str) -> bool:
        """Say whether the challenger decides: a pure function of the unit, so that a unit always meets one policy.

        The vector that is logged is that of the policy that acts, and the version names it: which of the two it was
        does not depend on anything that the reward could depend on, but for the unit itself.
        """
        if self.terms.mode != "canary":
            return False
        unit = request.context.named[self.terms.unit].text if self.terms.unit in request.context.named else ""
        return place(self.policy.version, unit or decision_id) < self.terms.share

    def note(self, decision: Decision) -> None:
        """Write what a shadow would have done into a decision; nothing where it cannot, for it must not cost one."""
        if self.terms.mode != "shadow":
            return
        vector = vector_of(self.policy, decision)
        if vector:
            decision.shadow_policy_version = self.policy.version
            decision.shadow_probabilities.extend(vector)
