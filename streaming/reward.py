"""Feedback: what the outcomes of a decision amount to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from engine.config import RewardConfig
from engine.records import Feedback

_DECISION_TAG = b"\x0a"  # field 1 of Feedback; the length of the decision and its bytes follow


def feedback(decision: bytes, time_ms: int, outcomes: Sequence[tuple[int, float]], config: RewardConfig) -> bytes:
    """Return the feedback of a decision, serialised.

    Parameters
    ----------
    decision
        The decision's bytes. They are not read: they stand in the feedback as they are.
    time_ms
        When it was made.
    outcomes
        Time and value of those that count, in the order of the log.
    config
        How they become a reward.

    Examples
    --------
    >>> from engine.records import Decision
    >>> made = Decision(decision_id="d", time_ms=5)
    >>> value = feedback(made.SerializeToString(), 5, [(7, 1.0), (9, 0.5)], RewardConfig(aggregation="sum"))
    >>> value == Feedback(decision=made, reward=1.5, outcomes=2, reward_time_ms=9).SerializeToString()
    True
    """
    if len(outcomes) == 1:  # whatever the aggregation
        last_ms, reward = outcomes[0]
        rest = Feedback(reward=reward, outcomes=1, reward_time_ms=last_ms)
    elif outcomes:
        reward, last_ms = aggregate(outcomes, config.aggregation), max(outcomes)[0]
        rest = Feedback(reward=reward, outcomes=len(outcomes), reward_time_ms=last_ms)
    else:
        rest = Feedback(reward=config.default, defaulted=True, reward_time_ms=time_ms + config.window)
    return with_decision(decision, rest)


def with_decision(decision: bytes, rest: Feedback) -> bytes:
    """Return a feedback, serialised, of a serialised decision and all that is beside it."""
    return b"".join((_prefix(len(decision)), decision, rest.SerializeToString()))


def aggregate(outcomes: Sequence[tuple[int, float]], aggregation: str) -> float:
    """Return the reward that outcomes (time and value, in the order of the log; one at least) make together.

    ``aggregation`` is that of ``RewardConfig``.
    """
    values = [value for _, value in outcomes]
    match aggregation:
        case "first":
            return values[0]
        case "last":  # of equal times the later one in the log
            return max(enumerate(outcomes), key=lambda item: (item[1][0], item[0]))[1][1]
        case "sum":
            return math.fsum(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case _:
            mean = math.fsum(values) / len(values)
            return min(max(mean, min(values)), max(values))  # rounding could leave the declared range


@lru_cache(maxsize=4_096)
def _prefix(length: int) -> bytes:
    """Return what stands before the bytes of a decision."""
    return _DECISION_TAG + _varint(length)


def _varint(number: int) -> bytes:
    """Return a length as Protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)
