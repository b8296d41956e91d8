from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming.embedded import EmbeddedLog
from streaming.log import Log, Message
from streaming.recorder import LogRecorder
from streaming.topics import DECISIONS, OUTCOMES
from tests.streaming.samples import PARTITIONS, opened


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


class Gate:
    """A log that writes only when it is let, and can be made to fail."""

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.entered = threading.Event()
        self.let = threading.Event()
        self.error: Exception | None = None

    def append(self, messages: Sequence[Message]) -> None:
        self.entered.set()
        assert self.let.wait(10)
        if self.error is not None:
            raise self.error
        self.writes.append(len(messages))


def decision(number: int) -> Decision:
    return Decision(decision_id=f"d{number}", decision_point="page", time_ms=number)


def test_a_decision_and_its_outcome_lie_in_partitions_of_one_number(log: EmbeddedLog) -> None:
    recorder = LogRecorder(log)
    for number in range(20):
        recorder.record([decision(number), Outcome(decision_id=f"d{number}", value=1.0)]).result(10)
    recorder.close()
    placed = [
        {record.key: n for n in range(PARTITIONS) for record in log.read(topic, n)} for topic in (DECISIONS, OUTCOMES)
    ]
    assert placed[0] == placed[1]
    assert len(placed[0]) == 20


def test_what_gathers_during_a_write_goes_out_in_one() -> None:
    gate = Gate()
    recorder = LogRecorder(cast(Log, gate))
    futures = [recorder.record([decision(0)])]
    assert gate.entered.wait(10)
    futures += [recorder.record([decision(number)]) for number in range(1, 50)]
    gate.let.set()
    for future in futures:
        future.result(10)
    recorder.close()
    assert gate.writes == [1, 49]


@pytest.mark.parametrize("error", [LogError("disk full"), RuntimeError("a surprise")])
def test_a_write_that_fails_is_told_to_all_who_wait_and_the_next_succeeds(error: Exception) -> None:
    gate, failures = Gate(), []
    gate.let.set()
    gate.error = error
    recorder = LogRecorder(cast(Log, gate), on_error=lambda: failures.append(1))
    with pytest.raises(type(error), match=str(error)):
        recorder.record([decision(0)]).result(10)
    gate.error = None
    recorder.record([decision(1)]).result(10)
    recorder.close()
    assert failures == [1]


def test_memory_is_bounded_and_closing_writes_what_waits() -> None:
    gate = Gate()
    recorder = LogRecorder(cast(Log, gate), limit=5)
    first = recorder.record([decision(0)])
    assert gate.entered.wait(10)
    waiting = [recorder.record([decision(number)]) for number in range(1, 6)]
    with pytest.raises(LogError, match="5 records wait"):
        recorder.record([decision(6)]).result(0)
    assert recorder.depth == 5
    gate.let.set()
    recorder.close()
    for future in (first, *waiting):
        future.result(0)
    with pytest.raises(LogError, match="closed"):
        recorder.record([decision(7)]).result(0)
