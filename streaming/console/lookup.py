"""One decision with everything that is known of it: what was asked, how it was drawn, what came of it, and a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from engine.errors import SnapshotError
from engine.recommender.store import RecommenderStore
from engine.records import FALLBACK_REASON_NONE, Decision, Feedback, Value, fallback_name
from engine.store import PolicyStore
from streaming.config import Config
from streaming.intake import feedback_of
from streaming.log import Log, Record, partition_of
from streaming.replaying import replay_decision
from streaming.topics import DECISIONS, FEEDBACK, OUTCOMES
from streaming.wire import UnreadableError, read_outcome

#: So many of the newest records of a partition are looked through; there is no index by id.
SEARCHED = 200_000
_AT_ONCE = 1_000
#: Features and actions beyond so many are left out.
SHOWN = 200


def look_up(config: Config, log: Log, decision_id: str, visible: Callable[[str], bool]) -> dict[str, Any] | None:
    """Return what is known of a decision, as plain values.

    Parameters
    ----------
    config, log
        Where to look.
    decision_id
        Its id.
    visible
        Whether decisions of a decision point may be shown.

    Returns
    -------
    dict or None
        ``None`` where there is none among the newest records, or it may not be shown.
    """
    key = decision_id.encode()
    decision = next(filter(None, map(_decision, _backwards(log, DECISIONS, key, most=1))), None)
    if decision is None or not visible(decision.decision_point):
        return None
    outcomes = [found for record in _backwards(log, OUTCOMES, key) if (found := _outcome(record)) is not None]
    feedback = next(filter(None, map(feedback_of, _backwards(log, FEEDBACK, key, most=1))), None)
    policy = _policy(config, decision)
    difference = replay_decision(config.policy_dir, decision)
    return {
        "decision_id": decision.decision_id,
        "decision_point": decision.decision_point,
        "time_ms": decision.time_ms,
        "policy_version": decision.policy_version,
        "policy": policy,
        "context": _features(decision.context.named, decision.context.packed),
        "actions": _actions(decision),
        "actions_left_out": max(0, len(decision.actions) - SHOWN),
        "list": _list(decision),
        "chosen": decision.actions[decision.chosen].id if 0 <= decision.chosen < len(decision.actions) else None,
        "fallback": fallback_name(decision.fallback),
        "fallback_detail": decision.fallback_detail,
        "shadow_policy_version": decision.shadow_policy_version,
        "outcomes": outcomes[::-1],
        "feedback": None if feedback is None else _feedback(feedback),
        "replay": {"same": not difference, "words": difference or "recomputed bit for bit: nothing differs"},
        "words": explanation(config, decision, policy, feedback),
    }


def explanation(
    config: Config, decision: Decision, policy: Mapping[str, Any] | None, feedback: Feedback | None
) -> list[str]:
    """Say in sentences how a decision came about, and what came of it."""
    chosen, count = decision.chosen, len(decision.actions)
    if not (0 <= chosen < count == len(decision.probabilities)):
        return ["The record is damaged: chosen action, actions and probabilities do not fit each other."]
    open_to = sum(not action.excluded for action in decision.actions)
    name, drawn = decision.actions[chosen].id, decision.probabilities[chosen]
    where = "for the first slot " if decision.HasField("slate") else ""
    words = [f"{name!r} was drawn {where}with probability {drawn:.4g} from {open_to} actions."]
    if decision.fallback != FALLBACK_REASON_NONE:
        detail = f": {decision.fallback_detail}" if decision.fallback_detail else ""
        words.append(f"It is a fallback, without scores ({fallback_name(decision.fallback)}{detail}).")
    elif len(decision.scores) == count:
        order = sorted((i for i in range(count) if not decision.actions[i].excluded), key=lambda i: -decision.scores[i])
        best, score = order[0], decision.scores[chosen]
        if decision.scores[best] <= score:
            words.append(f"No action was expected to earn more: its score is {score:.4g}.")
        else:
            words.append(
                f"It was explored: its score is {score:.4g}, and the highest is {decision.scores[best]:.4g} of "
                f"{decision.actions[best].id!r}, which had probability {decision.probabilities[best]:.4g}."
            )
    if policy is None:
        words.append(f"Policy {decision.policy_version} is not on this machine any more.")
    else:
        words.append(
            f"Policy {decision.policy_version} ({policy['oracle']} oracle, {policy['exploration']} exploration) had "
            f"learned from {policy['learned']} feedbacks."
        )
    settings = config.deciding.get(decision.decision_point)
    if feedback is not None and feedback.defaulted:
        words.append(f"No outcome came in time: it has the default reward {feedback.reward:.4g}.")
    elif feedback is not None:
        words.append(f"It earned {feedback.reward:.4g}, from {feedback.outcomes} outcomes.")
    elif settings is not None:
        words.append(f"It has no feedback yet; its window is {settings.reward.window / 1_000:g} s long.")
    return words


def _backwards(log: Log, topic: str, key: bytes, most: int | None = None) -> list[Record]:
    """Return the records of a key, the newest first, ``most`` of them, among the newest of its partition."""
    ends = log.ends(topic)
    partition = partition_of(key, len(ends))
    stop = ends[partition]
    least = max(0, stop - SEARCHED)
    found: list[Record] = []
    while stop > least:
        start = max(least, stop - _AT_ONCE)
        records = log.read(topic, partition, start, _AT_ONCE)
        if records and records[0].offset >= stop:
            break  # what was before is deleted
        found += [record for record in reversed(records) if record.offset < stop and record.key == key]
        if most is not None and len(found) >= most:
            return found[:most]
        stop = start
    return found


def _decision(record: Record) -> Decision | None:
    try:
        return Decision.FromString(record.value or b"")
    except DecodeError:
        return None


def _outcome(record: Record) -> dict[str, Any] | None:
    try:
        outcome = read_outcome(record)
    except UnreadableError:
        return None  # it is among the dead letters, with the reason
    return {
        "outcome_id": outcome.outcome_id,
        "time_ms": outcome.time_ms,
        "value": outcome.value,
        "task": outcome.task,
        "item": outcome.item,
        "slot": outcome.slot if outcome.HasField("slot") else None,
    }


def _policy(config: Config, decision: Decision) -> dict[str, Any] | None:
    point, version = decision.decision_point, decision.policy_version
    oracle: str
    exploration: str
    try:
        if decision.HasField("slate"):
            ranked = RecommenderStore(config.policy_dir).load(point, version)
            oracle = "no" if ranked.model is None else ranked.model.kind
            exploration, learned = ranked.recommender.slate.exploration.kind, ranked.learned
            generation, created_ms = ranked.generation, ranked.created_ms
        else:
            policy = PolicyStore(config.policy_dir).load(point, version)
            oracle, exploration, learned = policy.oracle.kind, policy.exploration.kind, policy.learned
            generation, created_ms = policy.generation, policy.created_ms
    except SnapshotError:
        return None
    return {
        "oracle": oracle,
        "exploration": exploration,
        "learned": learned,
        "generation": generation,
        "created_ms": created_ms,
    }


def _actions(decision: Decision) -> list[dict[str, Any]]:
    def of(values: Any, place: int) -> float | None:
        return values[place] if place < len(values) else None

    return [
        {
            "id": action.id,
            "excluded": action.excluded,
            "score": of(decision.scores, place),
            "probability": of(decision.probabilities, place),
            "shadow_probability": of(decision.shadow_probabilities, place),
            "chosen": place == decision.chosen,
            "features": _features(action.features, b""),
        }
        for place, action in enumerate(decision.actions[:SHOWN])
    ]


def _list(decision: Decision) -> list[dict[str, Any]] | None:
    if not decision.HasField("slate"):
        return None
    pairs = zip(decision.slate.items, decision.slate.propensities, strict=False)
    return [
        {"slot": slot, "item": decision.actions[item].id, "propensity": propensity}
        for slot, (item, propensity) in enumerate(pairs)
        if 0 <= item < len(decision.actions)
    ]


def _features(named: Mapping[str, Value], packed: bytes) -> dict[str, Any]:
    found = {name: _plain(named[name]) for name in sorted(named)[:SHOWN]}
    if packed and len(packed) % 4 == 0:
        found["(packed numbers)"] = np.frombuffer(packed, "<f4")[:SHOWN].tolist()
    return found


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number":
            return value.number
        case "text":
            return value.text
        case "numbers":
            return list(value.numbers.values[:SHOWN])
        case "texts":
            return list(value.texts.values[:SHOWN])
        case None:
            return None


def _feedback(feedback: Feedback) -> dict[str, Any]:
    return {
        "reward": feedback.reward,
        "defaulted": feedback.defaulted,
        "outcomes": feedback.outcomes,
        "reward_time_ms": feedback.reward_time_ms,
    }
