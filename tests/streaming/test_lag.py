"""Lag as an onlooker sees it: 0 where nothing can be read, whatever the offsets say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming.embedded import EmbeddedLog
from streaming.lag import Lag, lag
from streaming.topics import FEEDBACK, LEARNER
from tests.streaming.samples import append, feedback, opened

NUMBERS = range(10)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


def seen(log: EmbeddedLog) -> Lag:
    return lag(log, LEARNER, [FEEDBACK])[FEEDBACK]


def test_it_counts_what_is_not_committed_and_dates_the_oldest(log: EmbeddedLog) -> None:
    assert seen(log) == Lag(0, None)
    rows = [feedback(number, 1.0) for number in NUMBERS]
    append(log, *rows)
    assert seen(log) == Lag(len(rows), rows[0].decision.time_ms)
    consumer = log.consumer(LEARNER, [FEEDBACK])
    records = consumer.poll(4)
    assert seen(log).records == len(rows)  # read, and not committed
    consumer.commit()
    left = sorted(row.decision.time_ms for row in rows)
    for record in records:
        left.remove(record.timestamp_ms)
    assert seen(log) == Lag(len(left), left[0])


def test_what_was_deleted_is_nobodys_lag(log: EmbeddedLog) -> None:
    append(log, *(feedback(number, 1.0) for number in NUMBERS))
    while log.expire(10**15):
        pass
    assert sum(log.ends(FEEDBACK).values()) == len(NUMBERS)
    assert seen(log) == Lag(0, None)
