from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming import recorder as module
from streaming.embedded import EmbeddedLog
from streaming.log import Message
from streaming.recorder import Limits, LogRecorder
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import message_of
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
    recorder = LogRecorder(gate)
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
    recorder = LogRecorder(gate, on_error=lambda: failures.append(1))
    with pytest.raises(type(error), match=str(error)):
        recorder.record([decision(0)]).result(10)
    gate.error = None
    recorder.record([decision(1)]).result(10)
    recorder.close()
    assert failures == [1]


def test_memory_is_bounded_and_closing_writes_what_waits() -> None:
    gate = Gate()
    recorder = LogRecorder(gate, Limits(records=5))
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


def test_bytes_are_bounded_too_and_one_record_cannot_be_too_large() -> None:
    gate = Gate()
    size = len(decision(1).SerializeToString()) + 2  # with its key
    headers = sum(len(name) + len(value) for name, value in message_of(decision(1)).headers)
    recorder = LogRecorder(gate, Limits(bytes=2 * (size + headers), record_bytes=size + headers))
    first = recorder.record([decision(1)])
    assert gate.entered.wait(10)
    waiting = [recorder.record([decision(number)]) for number in (2, 3)]
    with pytest.raises(LogError, match="bytes of records wait"):
        recorder.record([decision(4)]).result(0)
    with pytest.raises(LogError, match=r"is larger than log\.max_message_bytes"):
        recorder.record([decision(123_456)]).result(0)
    gate.let.set()
    recorder.close()
    for future in (first, *waiting):
        future.result(0)


def test_at_once_means_before_the_write_and_a_write_that_fails_is_tried_until_it_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    gate, failures = Gate(), []
    gate.error = LogError("spool full")
    recorder = LogRecorder(gate, Limits(records=5), at_once=True, on_error=lambda: failures.append(1))
    recorder.record([decision(0)]).result(0)
    assert gate.entered.wait(10)
    for number in range(1, 6):
        recorder.record([decision(number)]).result(0)
    with pytest.raises(LogError, match="5 records wait"):
        recorder.record([decision(6)]).result(0)
    gate.let.set()
    end = time.monotonic() + 10
    while len(failures) < 3 and time.monotonic() < end:
        time.sleep(0.001)
    assert gate.writes == []
    gate.error = None
    recorder.close()
    assert gate.writes == [1, 5]


def test_what_was_answered_for_and_is_lost_at_the_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    gate.error = LogError("spool full")
    gate.let.set()
    recorder = LogRecorder(gate, at_once=True)
    recorder.record([decision(0), decision(1)]).result(0)
    recorder.close()
    assert "2 records are lost that calls were answered for: spool full" in caplog.text


def test_trouble_is_said_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streaming.recorder")
    gate = Gate()
    gate.let.set()
    recorder = LogRecorder(gate)
    for error in (None, LogError("disk full"), LogError("disk full"), None, None):
        gate.error = error
        recorder.record([decision(0)]).exception(10)
    recorder.close()
    assert [record.getMessage() for record in caplog.records] == [
        "records cannot be written: disk full",
        "records are written again",
    ]
