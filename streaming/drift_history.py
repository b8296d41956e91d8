"""What a stream read around a change, from the feedback in the log."""

from __future__ import annotations

from engine.records import Alarm, Feedback
from monitoring.watch import PointWatch, StreamHistory
from streaming.feedback_window import first_at, wanted
from streaming.intake import feedback_of
from streaming.list_watch import watched
from streaming.log import Log
from streaming.topics import FEEDBACK

#: Observations that are looked at on either side, and feedbacks read for that at most.
SIDE = 2_000
MOST = 60_000


def history_of(log: Log, alarm: Alarm, watch: PointWatch, key: str) -> StreamHistory | None:
    """Return what the stream of an alarm read around its change; ``None`` where it cannot be had any more."""
    # As far before the change as the detection lay behind it for each observation since.
    step_ms = max(1.0, (alarm.detected_ms - alarm.change_ms) / max(1, alarm.count_after))
    before = min(SIDE, max(alarm.count_before, 2 * alarm.count_after))
    begin_ms = alarm.change_ms - round(before * step_ms)
    end_ms = alarm.detected_ms + round(min(SIDE, before) * step_ms)
    found: list[Feedback] = []
    partitions = log.ends(FEEDBACK)
    for partition, end in partitions.items():
        start = max(0, first_at(log, partition, end, begin_ms) - 1)
        left = MOST // len(partitions)
        while left > 0 and (records := log.read(FEEDBACK, partition, start)):
            start = records[-1].offset + 1
            left -= len(records)
            entries = [entry for record in records if (entry := feedback_of(record)) is not None]
            found += [watched(entry) for entry in entries if wanted(entry, alarm.decision_point, begin_ms, end_ms)]
            if records[-1].timestamp_ms > end_ms:
                break
    found.sort(key=lambda entry: entry.decision.time_ms)
    history = watch.history(key, found) if found else None
    return history if history is not None and len(history.categories) > 1 else None
