"""``leeway replay``: every logged decision computed again from its policy's snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from engine.errors import SnapshotError
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.replay import slate_mismatch
from engine.recommender.store import RecommenderStore
from engine.records import Decision
from engine.replay import mismatch, shadow_mismatch
from engine.store import PolicyStore
from streaming.log import Log
from streaming.topics import DECISIONS

#: Differences that are told in words.
EXAMPLES = 10
#: Policies held in memory; decisions come nearly in time order, so few are in use at a time.
CACHED = 64


@dataclass
class ReplayResult:
    """What was recomputed and what differs."""

    decisions: int = 0
    mismatches: int = 0
    examples: list[str] = field(default_factory=list)


class _Policies:
    def __init__(self, directory: Path) -> None:
        self._points = PolicyStore(directory)
        self._lists = RecommenderStore(directory)
        self._loaded: dict[tuple[str, str, bool], Policy | RecommenderPolicy | str] = {}

    def difference(self, decision: Decision) -> str:
        """Return what differs between a logged decision and its recomputation, or why that cannot be done."""
        policy = self._get(decision.decision_point, decision.policy_version, decision.HasField("slate"))
        if isinstance(policy, str):
            return policy
        if isinstance(policy, RecommenderPolicy):
            return slate_mismatch(decision, policy)
        difference = mismatch(decision, policy)
        if not difference and decision.shadow_policy_version:
            shadow = self._get(decision.decision_point, decision.shadow_policy_version, is_list=False)
            # Of a decision that is no list only a policy, or why there is none, can be had.
            difference = shadow_mismatch(decision, shadow) if isinstance(shadow, Policy) else str(shadow)
        return difference

    def _get(self, point: str, version: str, is_list: bool) -> Policy | RecommenderPolicy | str:
        """Return a policy, or why it cannot be had."""
        key = (point, version, is_list)
        if key not in self._loaded:
            if len(self._loaded) >= CACHED:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                self._loaded[key] = (self._lists if is_list else self._points).load(point, version)
            except SnapshotError as error:
                self._loaded[key] = str(error)
        return self._loaded[key]


def replay_decision(policy_dir: Path, decision: Decision) -> str:
    """Recompute one decision; return what differs, or why it cannot be recomputed, and empty where nothing differs."""
    return _Policies(policy_dir).difference(decision)


def replay_log(log: Log, policy_dir: Path, decision_id: str | None = None) -> ReplayResult:
    """Recompute all logged decisions, or one. A record that is no decision is the join's business and skipped."""
    result = ReplayResult()
    policies = _Policies(policy_dir)
    for partition in log.ends(DECISIONS):
        start = 0
        while records := log.read(DECISIONS, partition, start):
            start = records[-1].offset + 1
            for record in records:
                if decision_id is not None and record.key != decision_id.encode():
                    continue
                try:
                    decision = Decision.FromString(record.value or b"")
                except DecodeError:
                    continue
                result.decisions += 1
                difference = policies.difference(decision)
                if difference:
                    result.mismatches += 1
                    if len(result.examples) < EXAMPLES:
                        result.examples.append(f"{decision.decision_id}: {difference}")
    return result
