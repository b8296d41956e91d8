"""Decisions recomputed while they are watched: a sample of them, from the policies on disk."""

from __future__ import annotations

from collections import Counter

from engine.errors import SnapshotError
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.replay import slate_mismatch
from engine.recommender.store import RecommenderStore
from engine.records import Decision
from engine.replay import mismatch
from engine.store import PolicyStore

#: Policies held in memory; feedback comes nearly in the order of the decisions, so few are in use at a time.
CACHED = 64


class PolicyAudit:
    """Holds decisions against the snapshots of their policies.

    Parameters
    ----------
    store
        Where policies are.

    Attributes
    ----------
    results : Counter
        Decisions that were recomputed, by decision point and result (``same`` or ``different``).
    """

    def __init__(self, store: PolicyStore) -> None:
        self._points = store
        self._lists = RecommenderStore(store.root)
        self.results: Counter[tuple[str, str]] = Counter()
        self._loaded: dict[tuple[str, str], Policy | RecommenderPolicy | None] = {}

    def __call__(self, decision: Decision) -> str | None:
        """Return what differs, empty where nothing does; ``None`` where the policy cannot be had."""
        is_list = decision.HasField("slate")
        policy = self._policy(decision.decision_point, decision.policy_version, is_list)
        if policy is None:
            return None
        difference = mismatch(decision, policy) if isinstance(policy, Policy) else slate_mismatch(decision, policy)
        self.results[decision.decision_point, "different" if difference else "same"] += 1
        return difference

    def _policy(self, point: str, version: str, is_list: bool) -> Policy | RecommenderPolicy | None:
        key = (point, version)
        if key not in self._loaded:
            if len(self._loaded) >= CACHED:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                self._loaded[key] = (self._lists if is_list else self._points).load(point, version)
            except SnapshotError:
                # Deleted, or on another machine: `leeway replay` names those.
                self._loaded[key] = None
        return self._loaded[key]
