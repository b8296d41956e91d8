"""A small decision point and its feedback, for the tests of the roles."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.records import Action, Decision, Features, Feedback
from streaming.config import DecisionPointConfig
from streaming.embedded import EmbeddedLog
from streaming.log import Message
from streaming.topics import FEEDBACK, topics

NAME = "page"
PARTITIONS = 2
POINT = DecisionPointConfig.model_validate(
    {
        "context": {"x": {"type": "vector", "size": 2}},
        "policy": {"publish_interval": "1s", "drift_exploration": 0.5, "drift_exploration_feedbacks": 50},
        "retraining": {"min_events": 10},
    }
)
ACTIONS = [Action(id="a"), Action(id="b")]


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def feedback(number: int, reward: float, *, score: float = 0.5, version: str = "g0.0-00000000") -> Feedback:
    """Return the feedback of the ``number``-th decision, which chose ``a`` where x is (1, 0), else ``b``."""
    side = number % 2
    return Feedback(
        decision=Decision(
            decision_id=f"d{number}",
            decision_point=NAME,
            time_ms=1_000 + number,
            policy_version=version,
            context=Features(packed=struct.pack("<2f", 1 - side, side)),
            actions=ACTIONS,
            probabilities=[0.5, 0.5],
            chosen=side,
            scores=[score, score],
            salt="leeway",
        ),
        reward=reward,
        outcomes=1,
        reward_time_ms=1_100 + number,
    )


def append(log: EmbeddedLog, *entries: Feedback) -> None:
    """Put feedback into the log, as the join does."""
    with log.transaction("join") as transaction:
        for entry in entries:
            key, time_ms = entry.decision.decision_id.encode(), entry.decision.time_ms
            transaction.send(Message(FEEDBACK, key, entry.SerializeToString(), time_ms))


@contextmanager
def opened(directory: Path) -> Iterator[EmbeddedLog]:
    """Open a log with all topics."""
    log = EmbeddedLog(directory / "log", fsync=False)
    try:
        log.create(topics(PARTITIONS, 10**13))
        yield log
    finally:
        log.close()
