"""The demo's figures, read from the log after the server has stopped: not from what the client believes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.records import Alarm, Decision, Direction, Feedback, Generation, entropy, generation_of
from monitoring.generations import mean_entropy, mean_reward, positive_share
from streaming.config import Config
from streaming.insight import latest_alarms, tail
from streaming.joiner import read_accounting
from streaming.log import Log
from streaming.monitor import read_statistics
from streaming.opening import open_log
from streaming.replaying import replay_log
from streaming.topics import DECISIONS, FEEDBACK, GENERATIONS

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
MEAN_OF = 1_000


@dataclass(frozen=True)
class Series:
    """What the plots show, one entry for each feedback in the order of the decisions."""

    time_ms: Int64
    reward: Float64
    propensity: Float64
    entropy: Float64
    delay_ms: Float64  # NaN where the default was taken
    change_at: int
    alarms: list[tuple[int, Alarm]]
    promotions: list[tuple[int, Generation]]


def values(log: Log, topic: str) -> list[bytes]:
    """Return the values of all records of a topic."""
    return tail(log, topic, 2**40)


def collect(config: Config, point: str, change_ms: int, acknowledged: list[str]) -> tuple[dict[str, Any], Series]:
    """Return the figures and the series of a finished run."""
    log = open_log(config)
    try:
        return _collect(config, log, point, change_ms, acknowledged)
    finally:
        log.close()


def _collect(
    config: Config, log: Log, point: str, change_ms: int, acknowledged: list[str]
) -> tuple[dict[str, Any], Series]:
    feedback = sorted((Feedback.FromString(v) for v in values(log, FEEDBACK)), key=lambda f: f.decision.time_ms)
    ids = [Decision.FromString(v).decision_id for v in values(log, DECISIONS)]
    times = np.array([f.decision.time_ms for f in feedback], dtype=np.int64)
    rewards = np.array([f.reward for f in feedback])
    change_at = int(np.searchsorted(times, change_ms))
    alarms = latest_alarms(log, point, 10_000)
    generations = [Generation.FromString(value) for value in values(log, GENERATIONS)]
    book = read_accounting(log)[point]
    replayed = replay_log(log, config.policy_dir)
    before, after = rewards[max(0, change_at - MEAN_OF) : change_at], rewards[change_at:][-MEAN_OF:]
    logged = set(ids)
    figures: dict[str, Any] = {
        "decisions": len(ids),
        "feedback": len(feedback),
        "defaulted": sum(f.defaulted for f in feedback),
        "pending": book.pending,
        "dead_letters": book.dead_letters,
        "late_outcomes": book.late_outcomes,
        "duplicate_outcomes": book.duplicate_outcomes,
        "decisions_logged_twice": len(ids) - len(logged),
        "acknowledged_missing": sum(decision_id not in logged for decision_id in acknowledged),
        "replayed": replayed.decisions,
        "replay_mismatches": replayed.mismatches,
        "reward_before": round(float(before.mean()), 4) if len(before) else 0.0,
        "reward_after": round(float(after.mean()), 4) if len(after) else 0.0,
        "change_at": change_at,
        "alarms": [
            {
                "monitor": alarm.monitor,
                "joined_after_change": int(np.searchsorted(times, alarm.detected_ms, side="right")) - 1 - change_at,
                "estimated_change": int(np.searchsorted(times, alarm.change_ms)) - change_at,
                "direction": Direction.Name(alarm.direction).removeprefix("DIRECTION_").lower(),
                "mean_before": round(alarm.mean_before, 4),
                "mean_after": round(alarm.mean_after, 4),
                "calls_for_retraining": alarm.calls_for_retraining,
                "explanation": alarm.explanation,
            }
            for alarm in alarms
        ],
        "generations": [
            {
                "generation": g.generation,
                "promoted": g.promoted,
                "after_change": g.trained_ms > change_ms,
                "oracle": g.oracle,
                "reason": g.reason,
                "rows": g.rows,
                "estimate": round(g.estimate, 4),
                "champion_estimate": round(g.champion_estimate, 4),
                "difference": [round(g.difference_low, 4), round(g.difference_high, 4)],
                "verdict": g.verdict,
                "registry_version": g.registry_version,
            }
            for g in generations
        ],
        "acted": [
            {
                "generation": s.generation,
                "feedback": s.feedback,
                "reward": round(mean_reward(s), 4),
                "entropy": round(mean_entropy(s), 4),
                "positives": round(positive_share(s), 4),
            }
            for s in read_statistics(log)
        ],
    }
    series = Series(
        time_ms=times,
        reward=rewards,
        propensity=np.array([f.decision.probabilities[f.decision.chosen] for f in feedback]),
        entropy=np.array([entropy(f.decision.probabilities) for f in feedback]),
        delay_ms=np.array([np.nan if f.defaulted else f.reward_time_ms - f.decision.time_ms for f in feedback]),
        change_at=change_at,
        alarms=[(int(np.searchsorted(times, alarm.detected_ms)), alarm) for alarm in alarms],
        promotions=_first_decisions(feedback, [g for g in generations if g.promoted]),
    )
    return figures, series


def _first_decisions(feedback: list[Feedback], promoted: list[Generation]) -> list[tuple[int, Generation]]:
    """Return where in the feedback each promoted generation decided for the first time."""
    acting = [generation_of(f.decision.policy_version) for f in feedback]
    return [(acting.index(g.generation), g) for g in promoted if g.generation in acting]
