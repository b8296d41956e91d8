"""What is put aside is put aside whole, and can be read whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import RewardConfig
from engine.errors import LeewayError
from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNREADABLE,
    Decision,
    Feedback,
    Outcome,
)
from streaming.dead_letters import REASONS, dead_letter, original, read_letter, reason_name, scan
from streaming.embedded import EmbeddedLog
from streaming.joiner import JoinerRole
from streaming.letter_replay import new_letters, remember, replay
from streaming.log import Message, Record, Topic, TopicPartition
from streaming.patience import LEAST_PATIENCE_MS
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, JOIN, OUTCOMES, topics
from streaming.wire import UnreadableError, message_of, read_outcome
from tests.streaming.samples import Clock

PARTITIONS = 2
RECORD = Record(OUTCOMES, 1, 7, 1_000, b"3f2a", b"\xff\xff", (("content-type", b"text/csv"), ("trace", b"\x00\xff")))


def kept(message: Message, offset: int = 40) -> Record:
    """Return a message as a log gives it back."""
    place = (message.topic, message.partition or 0, offset, message.timestamp_ms)
    return Record(*place, message.key, message.value, message.headers)


def test_a_letter_is_the_record_with_headers_added() -> None:
    message = dead_letter(RECORD, DEAD_LETTER_REASON_UNREADABLE, "no CSV, please: süd")
    assert (message.topic, message.partition) == (DEAD_LETTERS, RECORD.partition)
    assert (message.key, message.value, message.timestamp_ms) == (RECORD.key, RECORD.value, RECORD.timestamp_ms)
    assert tuple(message.headers[:2]) == RECORD.headers
    assert message.headers[2:] == (
        ("leeway_dlq_topic", b"outcomes"),
        ("leeway_dlq_partition", b"1"),
        ("leeway_dlq_offset", b"7"),
        ("leeway_dlq_timestamp_ms", b"1000"),
        ("leeway_dlq_reason", b"unreadable"),
        ("leeway_dlq_detail", "no CSV, please: süd".encode()),
    )


headers = st.tuples(st.text(max_size=5) | st.just("leeway_trace"), st.binary(max_size=5))
records = st.builds(
    Record,
    st.sampled_from([DECISIONS, OUTCOMES]), st.integers(0, 9), st.integers(-1, 2**63 - 1), st.integers(-(2**62), 2**62),
    st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9), st.lists(headers, max_size=4).map(tuple),
)  # fmt: skip


@given(records, st.sampled_from(REASONS), st.text(max_size=50))
def test_a_letter_gives_back_the_record_as_it_came(record: Record, reason: str, detail: str) -> None:
    number = {reason_name(n): n for n in range(1, 5)}[reason]  # type: ignore[arg-type]
    letter = read_letter(kept(dead_letter(record, number, detail)))  # type: ignore[arg-type]
    assert (letter.place, letter.reason, letter.detail) == (f"{record.partition}:40", reason, detail)
    assert (letter.original_partition, letter.original_offset) == (record.partition, record.offset)
    nothing = record.key is None and record.value is None  # no log takes a message like that
    value = b"" if nothing else record.value
    assert original(letter) == Message(record.topic, record.key, value, record.timestamp_ms, record.headers)


def test_a_letter_is_small_and_text_whatever_the_error_says() -> None:
    for detail in ("x" * 100_000, "ü" * 100_000, "lone \ud800 surrogate", ""):
        message = dead_letter(RECORD, DEAD_LETTER_REASON_INVALID, detail)
        assert sum(len(name) + len(value) for name, value in message.headers) < 1_500
        cut = dict(message.headers)["leeway_dlq_detail"].decode()
        assert cut == detail or cut.endswith("...") or cut == "lone ? surrogate"


def test_the_last_reason_counts_for_a_letter_of_a_letter() -> None:
    once = dead_letter(RECORD, DEAD_LETTER_REASON_UNREADABLE, "first")
    copied = Record(OUTCOMES, 0, 9, 2_000, once.key, once.value, once.headers)
    letter = read_letter(kept(dead_letter(copied, DEAD_LETTER_REASON_INVALID, "second")))
    assert (letter.reason, letter.detail, letter.original_offset) == ("invalid", "second", 9)
    assert letter.headers == RECORD.headers


@pytest.mark.parametrize(
    "foreign",
    [(), (("trace", b"1"),), (("leeway_dlq_offset", b"many"), ("leeway_dlq_topic", b"\xff"))],
)
def test_what_others_put_there_is_shown_and_not_replayed(foreign: tuple[tuple[str, bytes], ...]) -> None:
    letter = read_letter(Record(DEAD_LETTERS, 1, 3, 500, None, b"?", foreign))
    assert (letter.place, letter.value, letter.timestamp_ms) == ("1:3", b"?", 500)
    assert (letter.reason, letter.original_offset) == ("", -1)
    assert "no dead letter of Leeway" in letter.detail
    with pytest.raises(LeewayError, match=r"letter 1:3 comes from topic .* outcomes"):
        original(letter)


# replay


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with closing(EmbeddedLog(tmp_path / "log", fsync=False)) as log:
        log.create(topics(PARTITIONS, 10**13))
        yield log


def put_aside(log: EmbeddedLog, count: int, topic: str = OUTCOMES, partition: int = 0) -> None:
    """Put records aside that lay in the wrong partition, as those of a producer with another partitioner do."""
    log.append(
        [
            dead_letter(
                Record(topic, partition, n, 1_000 + n, b"k%d" % n, b"v%d" % n, (("n", b"%d" % n),)),
                DEAD_LETTER_REASON_UNKNOWN_DECISION,
                "",
            )
            for n in range(count)
        ]
    )


def contents(log: EmbeddedLog, topic: str) -> list[tuple[int, int, bytes | None, bytes | None, object]]:
    return sorted(
        (r.timestamp_ms, r.partition, r.key, r.value, tuple(r.headers))
        for partition in log.ends(topic)
        for r in log.read(topic, partition, max_records=100_000)
    )


def all_of(log: EmbeddedLog) -> int:
    """Replay all as the command does; return how many."""
    ends = log.ends(DEAD_LETTERS)
    counts = replay(log, lambda: new_letters(log, ends))
    remember(log, ends)
    return counts.total()


def test_records_are_appended_as_they_came_into_the_partition_of_their_key(log: EmbeddedLog) -> None:
    put_aside(log, 50)
    assert all_of(log) == 50
    # The same records, sent by a producer that does it right.
    sent = [Message("expected", b"k%d" % n, b"v%d" % n, 1_000 + n, (("n", b"%d" % n),)) for n in range(50)]
    log.create([Topic("expected", "test", PARTITIONS)])
    log.append(sent)
    assert contents(log, OUTCOMES) == contents(log, "expected")
    assert {partition for _, partition, *_ in contents(log, OUTCOMES)} == {0, 1}


def test_all_is_replayed_once_and_what_comes_later_the_next_time(log: EmbeddedLog) -> None:
    put_aside(log, 3)
    put_aside(log, 2, partition=1)
    assert [all_of(log), all_of(log)] == [5, 0]
    put_aside(log, 4)
    assert [all_of(log), all_of(log)] == [4, 0]
    assert len(contents(log, OUTCOMES)) == 9


def test_a_replay_does_not_follow_the_letters_that_it_leads_to(log: EmbeddedLog) -> None:
    put_aside(log, 3)
    ends = log.ends(DEAD_LETTERS)
    put_aside(log, 5)
    assert [letter.place for letter in new_letters(log, ends)] == ["0:0", "0:1", "0:2"]
    assert list(scan(log, 0, 3, 4)) == [next(scan(log, 0, 3, 8))]


def test_one_reason_alone_and_not_what_was_replayed_with_all(log: EmbeddedLog) -> None:
    put_aside(log, 3)
    log.append([dead_letter(RECORD, DEAD_LETTER_REASON_UNREADABLE, "")])

    def count(reason: str) -> int:
        return replay(log, lambda: new_letters(log, log.ends(DEAD_LETTERS), reason)).total()

    assert [count("unknown_decision"), count("unreadable"), count("invalid")] == [3, 1, 0]
    all_of(log)
    assert count("unknown_decision") == 0


def test_foreign_letters_are_passed_over_and_counted(log: EmbeddedLog) -> None:
    put_aside(log, 2)
    put_aside(log, 3, topic="elsewhere")
    log.append([Message(DEAD_LETTERS, b"?", b"?", 1)])
    ends = log.ends(DEAD_LETTERS)
    assert replay(log, lambda: new_letters(log, ends)) == {OUTCOMES: 2, "elsewhere": 3, "": 1}
    assert len(contents(log, OUTCOMES)) == 2


def test_many_are_replayed_in_batches(log: EmbeddedLog) -> None:
    put_aside(log, 12_000)
    told: list[int] = []
    ends = log.ends(DEAD_LETTERS)
    replay(log, lambda: new_letters(log, ends), told.append)
    assert told == [5_000, 10_000, 12_000]
    assert len(contents(log, OUTCOMES)) == 12_000


class JoinBeside(EmbeddedLog):
    """A log that tells what had been replayed when the join's offsets were asked for, and lets the join read then."""

    seen: list[tuple[int, int]]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        if group == JOIN:
            ends = self.ends(OUTCOMES)
            self.seen.append((sum(ends.values()), sum(self.ends(DECISIONS).values())))
            with self.transaction(JOIN) as transaction:
                transaction.commit_offsets({TopicPartition(OUTCOMES, n): end for n, end in ends.items()})
        return super().committed(group)


def test_decisions_come_when_the_join_has_read_the_outcomes(tmp_path: Path) -> None:
    # A decision whose window has passed is given the default reward at once, unless its outcomes wait for it.
    with closing(JoinBeside(tmp_path, fsync=False)) as log:
        log.seen = []
        log.create(topics(PARTITIONS, 10**13))
        put_aside(log, 3, topic=DECISIONS)
        put_aside(log, 4)
        assert all_of(log) == 7
        assert log.seen == [(4, 0)]
        assert len(contents(log, DECISIONS)) == 3


@contextmanager
def joining(log: EmbeddedLog, points: dict[str, RewardConfig], clock: Clock) -> Iterator[None]:
    """Run the join beside the block, until it has nothing more to do."""
    role, stop = JoinerRole(log, points, clock), Event()

    def run() -> None:
        while role.step(0.01) or not stop.is_set():
            pass

    with closing(role), ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            stop.set()
            running.result()


def test_a_replay_of_a_decision_long_after_its_window_has_its_true_reward(log: EmbeddedLog) -> None:
    clock = Clock()
    decision = Decision(decision_id="3f2a", decision_point="offers", time_ms=clock.now_ms)
    text = b'{"value": 1, "time_ms": %d}' % (clock.now_ms + 500)
    outcome = Message(OUTCOMES, b"3f2a", text, clock.now_ms, (("content-type", b"application/json"),))
    point = RewardConfig(window=1_000, grace=0, default=0.0)

    with joining(log, {"page": point}, clock):  # the decision point was forgotten in the configuration
        log.append([message_of(decision), outcome])
    clock.now_ms += 3_600_000
    with joining(log, {"page": point}, clock):
        pass
    ends = log.ends(DEAD_LETTERS)
    letters = [letter.reason for number, end in ends.items() for letter in scan(log, number, 0, end)]
    assert letters == ["unknown_decision_point", "unknown_decision"]

    with joining(log, {"page": point, "offers": point}, clock):
        assert all_of(log) == 2
    assert contents(log, FEEDBACK) == []
    clock.now_ms += LEAST_PATIENCE_MS  # it came late: the window is open for so long again
    with joining(log, {"page": point, "offers": point}, clock):
        pass
    feedback = [Feedback.FromString(value or b"") for _, _, _, value, _ in contents(log, FEEDBACK)]
    assert [(each.decision, each.reward, each.defaulted) for each in feedback] == [(decision, 1.0, False)]


def test_decisions_stay_where_the_join_stands_still(log: EmbeddedLog) -> None:
    put_aside(log, 1, topic=DECISIONS)
    put_aside(log, 1)
    ends = log.ends(DEAD_LETTERS)
    with pytest.raises(LeewayError, match="start `leeway work`"):
        replay(log, lambda: new_letters(log, ends), patience_s=0.01)
    assert contents(log, DECISIONS) == []
    assert len(list(new_letters(log, ends))) == 2


def test_outcomes_alone_do_not_wait_for_the_join(log: EmbeddedLog) -> None:
    outcome = message_of(Outcome(decision_id="3f2a", value=1.0, time_ms=5))
    log.append([dead_letter(kept(outcome), DEAD_LETTER_REASON_UNKNOWN_DECISION, "")])
    assert replay(log, lambda: new_letters(log, log.ends(DEAD_LETTERS)), patience_s=0.0) == {OUTCOMES: 1}


def test_headers_without_a_value_do_no_harm() -> None:
    # Kafka has them; nothing that others send may stop the line.
    headers: Any = [("content-type", None), ("trace", None)]
    record = Record(OUTCOMES, 0, 5, 1_000, b"3f2a", b"?", headers)
    with pytest.raises(UnreadableError, match="content-type"):
        read_outcome(record)
    put = dead_letter(record, DEAD_LETTER_REASON_UNREADABLE, "")
    assert tuple(put.headers[:2]) == (("content-type", b""), ("trace", b""))
    assert read_letter(Record(DEAD_LETTERS, 0, 5, 1_000, None, b"?", headers)).reason == ""
