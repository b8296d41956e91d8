"""Decisions recomputed while they are watched: a sample of them, from the policies on disk."""

from __future__ import annotations

from collections import Counter

from engine.errors import SnapshotError
from engine.policy import Policy
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
        self._store = store
        self.results: Counter[tuple[str, str]] = Counter()
        self._loaded: dict[tuple[str, str], Policy | None] = {}

    def __call__(self, decision: Decision) -> str | None:
        """Return what differs, empty where nothing does; ``None`` where the policy cannot be had."""
        policy = self._policy(decision.decision_point, decision.policy_version)
        if policy is None:
            return None
        difference = mismatch(decision, policy)
        self.results[decision.decision_point, "different" if difference else "same"] += 1
        return difference

    def _policy(self, point: str, version: str) -> Policy | None:
        key = (point, version)
        if key not in self._loaded:
            if len(self._loaded) >= CACHED:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                self._loaded[key] = self._store.load(point, version)
            except SnapshotError:
                # Deleted, or on another machine: `leeway replay` names those.
                self._loaded[key] = None
        return self._loaded[key]
