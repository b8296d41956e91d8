"""What roles take from the log: a record that is not what its topic holds is named in one line, and passed over.

Whoever may write to the log can write anything. A role that failed at such a record would fail at it for ever.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from engine.config import FLOAT32_MAX
from engine.records import FallbackReason, Feedback, Mode
from streaming.log import Log, Record

logger = logging.getLogger(__name__)

#: Probabilities come from the log as they were drawn from: what is further off their sum was never drawn from.
_SUM_TOLERANCE = 1e-6
#: 10000-01-01: times from then on have no date in most of what reads the archive.
_END_OF_TIME_MS = 253_402_300_800_000

_MessageT = TypeVar("_MessageT", bound=Message)


def place(record: Record) -> str:
    """Return where a record lies.

    >>> place(Record("alarms", 0, 7, 0, None, None))
    'alarms/0@7'
    """
    return f"{record.topic}/{record.partition}@{record.offset}"


def parsed(record: Record, kind: type[_MessageT]) -> _MessageT | None:
    """Return the value of a record as a message, or ``None``, with an error line, where the bytes are no such one."""
    try:
        return kind.FromString(record.value or b"")
    except DecodeError:
        logger.error("%s is no %s; skipped", place(record), kind.DESCRIPTOR.name.lower())
        return None


def feedback_of(record: Record) -> Feedback | None:
    """Return the feedback in a record, or ``None``, with an error line, where it cannot be that of a decision made.

    What is returned has as many probabilities as actions, which sum to 1; a chosen action, drawn with a probability
    above 0; a decision time from 1970 to 9999; a known fallback and mode; and a reward in the range of float32.
    """
    feedback = parsed(record, Feedback)
    if feedback is None:
        return None
    problem = _problem(feedback)
    if problem is not None:
        logger.error(
            "%s is no feedback; skipped: decision %r: %s", place(record), feedback.decision.decision_id[:256], problem
        )
        return None
    return feedback


def _problem(feedback: Feedback) -> str | None:
    """Say what is wrong with a feedback in itself, whatever its decision point."""
    decision = feedback.decision
    probabilities, count = decision.probabilities, len(decision.actions)
    if not 0 <= decision.chosen < count:
        return f"chosen is {decision.chosen}, but there are {count} actions"
    if len(probabilities) != count:
        return f"probabilities has {len(probabilities)} entries for {count} actions"
    # In this form NaN fails too.
    if not (min(probabilities) >= 0.0 and abs(sum(probabilities) - 1.0) <= _SUM_TOLERANCE):
        return f"probabilities are not from 0 to 1 with sum 1 (least {min(probabilities)}, sum {sum(probabilities)})"
    if not probabilities[decision.chosen] > 0.0:
        return f"the chosen action has probability {probabilities[decision.chosen]}"
    if not abs(feedback.reward) <= FLOAT32_MAX:
        return f"reward is {feedback.reward}, no finite number within the range of float32"
    if not 0 <= decision.time_ms < _END_OF_TIME_MS:
        return f"time_ms is {decision.time_ms}, not between the years 1970 and 9999"
    if decision.fallback not in FallbackReason.values():
        return f"fallback is {decision.fallback}, which has no name"
    if decision.mode not in Mode.values():
        return f"mode is {decision.mode}, which has no name"
    return None


def newest(log: Log, topic: str, count: int) -> list[Record]:
    """Return about the last ``count`` records of a topic that have a value, partition by partition."""
    ends = log.ends(topic)
    share = -(-count // max(len(ends), 1))
    return [
        record
        for partition, end in ends.items()
        for record in log.read(topic, partition, max(0, end - share), share)
        if record.value is not None
    ]
