"""Feedback of a time from the log: records lie nearly in the order of their decisions' times."""

from __future__ import annotations

from collections.abc import Iterator

from engine.records import Feedback, Generation, generation_of, policy_acted
from streaming.intake import feedback_of, parsed
from streaming.log import Log
from streaming.topics import FEEDBACK, GENERATIONS

#: Records read of each partition for one that is wanted, where other decision points have feedback too.
_FOR_EACH = 8


def first_at(log: Log, partition: int, end: int, time_ms: int) -> int:
    """Return an offset of the feedback before which records are older, or nearly all of them are."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        records = log.read(FEEDBACK, partition, middle, 1)
        if records and records[0].timestamp_ms < time_ms:
            low = middle + 1
        else:
            high = middle
    return low


def wanted(entry: Feedback, point: str, begin_ms: int, end_ms: int) -> bool:
    """Whether a feedback is of a decision point and a time, and made by a policy with a generation."""
    decision = entry.decision
    if decision.decision_point != point or not begin_ms <= decision.time_ms <= end_ms or not policy_acted(decision):
        return False
    try:
        generation_of(decision.policy_version)
    except ValueError:
        return False
    return True


def training_window(log: Log, point: str, generation: int, count: int) -> list[Feedback]:
    """Return the newest feedbacks of the window that a generation was trained on, in the order of their decisions.

    Parameters
    ----------
    log
        The log.
    point, generation
        Which generation.
    count
        How many at most; fewer where the log does not hold them any more, or the generation is not known.
    """
    entry = next((e for e in _generations(log) if (e.decision_point, e.generation) == (point, generation)), None)
    if entry is None:
        return []
    found: list[Feedback] = []
    for partition, end in log.ends(FEEDBACK).items():
        stop = first_at(log, partition, end, entry.window_end_ms)
        start = max(0, stop - _FOR_EACH * count)
        while start < stop and (records := log.read(FEEDBACK, partition, start, min(1_000, stop - start))):
            start = records[-1].offset + 1
            entries = [feedback for record in records if (feedback := feedback_of(record)) is not None]
            found += [e for e in entries if wanted(e, point, entry.window_start_ms, entry.window_end_ms)]
    found.sort(key=lambda feedback: feedback.decision.time_ms)
    return found[-count:]


def _generations(log: Log) -> Iterator[Generation]:
    start = 0
    while records := log.read(GENERATIONS, 0, start):
        start = records[-1].offset + 1
        for record in records:
            entry = parsed(record, Generation)
            if entry is not None and entry.promoted:
                yield entry
