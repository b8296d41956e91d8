from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from engine.config import RewardConfig
from engine.errors import LogError
from engine.records import (
    Decision,
    Feedback,
    JoinAccounting,
    JoinBlock,
    Outcome,
)
from streaming.changelog import HEAD_KEY
from streaming.dead_letters import Letter, read_letter
from streaming.embedded import EmbeddedLog
from streaming.joiner import JoinerRole, read_accounting
from streaming.log import Consumer, Message, Record, TopicPartition
from streaming.patience import LEAST_PATIENCE_MS
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, JOIN, JOIN_STATE, LATE, OUTCOMES, topics
from streaming.wire import message_of

PARTITIONS = 3
POINTS = {
    "page": RewardConfig(window=1_000, grace=100, aggregation="sum", default=0.0),
    "mail": RewardConfig(window=5_000, grace=0, aggregation="first", default=0.25),
}


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with closing(EmbeddedLog(tmp_path / "log", fsync=False)) as log:
        log.create(topics(PARTITIONS, 10**13))
        yield log


@pytest.fixture
def role(log: EmbeddedLog, clock: Clock) -> JoinerRole:
    return JoinerRole(log, POINTS, clock)


def decision(name: str, time_ms: int, point: str = "page") -> Decision:
    return Decision(decision_id=name, decision_point=point, time_ms=time_ms)


def outcome(name: str, time_ms: int, value: float, outcome_id: str = "") -> Outcome:
    return Outcome(decision_id=name, time_ms=time_ms, value=value, outcome_id=outcome_id)


def append(log: EmbeddedLog, *records: Decision | Outcome) -> None:
    log.append([message_of(record) for record in records])


def contents(log: EmbeddedLog, topic: str) -> list[Record]:
    return [record for partition in log.ends(topic) for record in log.read(topic, partition, max_records=100_000)]


def feedback_of(log: EmbeddedLog) -> dict[str, tuple[float, bool]]:
    found = [Feedback.FromString(record.value or b"") for record in contents(log, FEEDBACK)]
    assert len({f.decision.decision_id for f in found}) == len(found)
    return {f.decision.decision_id: (f.reward, f.defaulted) for f in found}


def letters_of(log: EmbeddedLog) -> list[Letter]:
    return [read_letter(record) for record in contents(log, DEAD_LETTERS)]


def waiting_in(log: EmbeddedLog) -> int:
    """How many outcomes without their decision the state holds."""
    values = [r.value for r in contents(log, JOIN_STATE) if r.key != HEAD_KEY and r.value is not None]
    return sum(len(JoinBlock.FromString(value).waiting) for value in values)


def settle(role: JoinerRole) -> None:
    while role.step():
        pass


def without_time(accounting: dict[str, JoinAccounting]) -> dict[str, JoinAccounting]:
    for book in accounting.values():
        book.ClearField("watermark_ms")
    return accounting


def test_a_deferred_decision_is_fed_back_where_it_was_activated_and_else_in_the_book_alone(
    log: EmbeddedLog, role: JoinerRole, clock: Clock
) -> None:
    asleep, awake = decision("a", 100), decision("b", 110)
    asleep.deferred = awake.deferred = True
    append(log, asleep, awake, outcome("a", 200, 1.0), outcome("b", 250, 1.0))
    append(log, Outcome(decision_id="b", time_ms=210, activation=True))
    settle(role)
    clock.now_ms = 10_000
    settle(role)
    assert feedback_of(log) == {"b": (1.0, False)}
    assert without_time(read_accounting(log)) == {"page": JoinAccounting(decisions=2, feedback=1, unactivated=1)}


def test_decisions_are_joined_with_their_outcomes(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, decision("a", 100), decision("b", 110), decision("c", 120, "mail"))
    append(log, outcome("a", 200, 1.0), outcome("a", 300, 0.5), outcome("c", 250, 0.75))
    assert role.step() == 6
    assert feedback_of(log) == {}
    clock.now_ms = 1_300
    assert role.step() == 0
    assert feedback_of(log) == {"a": (1.5, False), "b": (0.0, True)}
    clock.now_ms = 5_200
    assert role.step() == 0
    assert feedback_of(log) == {"a": (1.5, False), "b": (0.0, True), "c": (0.75, False)}
    assert without_time(read_accounting(log)) == {
        "page": JoinAccounting(decisions=2, feedback=2, defaulted=1),
        "mail": JoinAccounting(decisions=1, feedback=1),
    }


def test_feedback_lies_where_its_decision_lies_with_its_time(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, *(decision(f"d{n}", n) for n in range(30)))
    settle(role)
    clock.now_ms = 10_000
    settle(role)
    where = {record.key: (record.partition, record.timestamp_ms) for record in contents(log, DECISIONS)}
    assert {record.key: (record.partition, record.timestamp_ms) for record in contents(log, FEEDBACK)} == where
    assert len({partition for partition, _ in where.values()}) == PARTITIONS


def test_an_idle_topic_of_outcomes_holds_nothing_up(log: EmbeddedLog, clock: Clock) -> None:
    role = JoinerRole(log, POINTS, clock, batch=1)  # decisions are never read to their end
    append(log, *(decision(f"d{n}", n * 1_000) for n in range(30)))
    clock.now_ms = 30_000
    for _ in range(29):
        assert role.step() == 1
    assert len(feedback_of(log)) > 15


@pytest.mark.parametrize("again", [False, True])
def test_outcomes_shipped_behind_their_decisions_count_though_the_join_was_away_too(
    log: EmbeddedLog, clock: Clock, again: bool
) -> None:
    append(log, decision("before", 100))
    with closing(JoinerRole(log, POINTS, clock)) as earlier:
        settle(earlier)
    clock.now_ms = 60_000
    append(log, decision("while away", 30_000))
    role = JoinerRole(log, POINTS, clock)
    settle(role)  # both topics are at their ends, and the outcome is under way
    clock.now_ms = 61_000
    if again:
        role.close()
        role = JoinerRole(log, POINTS, clock)
    settle(role)
    append(log, outcome("while away", 30_500, 1.0))
    settle(role)
    clock.now_ms = 80_000
    settle(role)
    assert feedback_of(log) == {"before": (0.0, True), "while away": (1.0, False)}


def test_a_late_outcome_is_kept(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, decision("a", 0))
    role.step()
    clock.now_ms = 1_100
    role.step()
    append(log, outcome("a", 500, 1.0))
    role.step()
    assert [Outcome.FromString(record.value or b"") for record in contents(log, LATE)] == [outcome("a", 500, 1.0)]
    assert feedback_of(log) == {"a": (0.0, True)}
    assert read_accounting(log)["page"].late_outcomes == 1


def test_poison_goes_to_dead_letters_as_it_came_and_stops_nothing(
    log: EmbeddedLog, role: JoinerRole, clock: Clock
) -> None:
    poison: Sequence[Message] = [
        Message(DECISIONS, b"a", b"\xff\xff\xff", 7, partition=0),
        Message(OUTCOMES, b"a", None, 8, partition=0),
        Message(OUTCOMES, b"a", outcome("a", 9, float("nan")).SerializeToString(), 9, [("by", b"me")], partition=0),
        Message(OUTCOMES, b"", b"", 10, partition=0),
    ]
    log.append([*poison, Message(DECISIONS, b"a", decision("a", 0).SerializeToString(), 0, partition=0)])
    assert role.step() == 5
    letters = letters_of(log)
    found = sorted((x.topic, x.original_offset, x.timestamp_ms, x.key, x.value, x.headers, x.reason) for x in letters)
    assert found == [
        (DECISIONS, 0, 7, b"a", b"\xff\xff\xff", (), "unreadable"),
        (OUTCOMES, 0, 8, b"a", None, (), "unreadable"),
        (OUTCOMES, 1, 9, b"a", poison[2].value, (("by", b"me"),), "invalid"),
        (OUTCOMES, 2, 10, b"", b"", (), "invalid"),
    ]
    assert all(letter.detail for letter in letters)
    clock.now_ms = 2_000
    role.step()
    assert feedback_of(log) == {"a": (0.0, True)}
    assert sum(book.dead_letters for book in read_accounting(log).values()) == 4


def test_an_outcome_that_waited_in_vain_is_kept(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    lone = outcome("nobody", 50, 1.0)
    append(log, lone)
    role.step()
    assert letters_of(log) == []
    clock.now_ms = 5_050  # the longest window
    role.step()
    (letter,) = letters_of(log)
    assert (letter.reason, letter.topic, letter.original_offset) == ("unknown_decision", OUTCOMES, 0)
    assert (letter.key, letter.value, letter.headers) == (b"nobody", lone.SerializeToString(), message_of(lone).headers)


def test_nothing_is_written_when_nothing_happens(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, decision("a", 0))
    role.step()
    ends = log.ends(JOIN_STATE)
    for clock.now_ms in range(0, 1_000, 50):
        role.step()
    assert log.ends(JOIN_STATE) == ends
    assert role.lag() == {TopicPartition(t, n): 0 for t in (DECISIONS, OUTCOMES) for n in range(PARTITIONS)}


def test_the_changelog_is_empty_in_the_end(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, *(decision(f"d{n}", n) for n in range(50)))
    append(log, *(outcome(f"d{n}", n, 1.0) for n in range(60)))
    for clock.now_ms in (0, 10_000, 20_000, 30_000):
        settle(role)
    assert {record.key for record in contents(log, JOIN_STATE)} == {HEAD_KEY}
    assert read_accounting(log)[""].dead_letters == 10


class Faulty(EmbeddedLog):
    """A log whose next write fails, before or after it took effect, or whose next read does."""

    fault = ""

    def write(self, writer, messages, offsets):  # type: ignore[no-untyped-def]
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise LogError("the disk is full")
        super().write(writer, messages, offsets)
        if fault == "after":
            raise LogError("the answer was lost")

    def remaining(self, partition: TopicPartition, start: int) -> int:
        if self.fault == "read":
            self.fault = ""
            raise LogError("the disk refused")
        return super().remaining(partition, start)


def script(seed: int, count: int) -> list[Decision | Outcome]:
    """Decisions and their outcomes, of which some are lost, sent twice, late, early or for nobody."""
    rng = random.Random(seed)
    timed: list[tuple[float, Decision | Outcome]] = []
    for number in range(count):
        time_ms = number * 20
        made = decision(f"d{number}", time_ms, rng.choice(["page", "mail"]))
        timed.append((time_ms + rng.random() * 90, made))
        if rng.random() < 0.05:
            timed.append((time_ms + 100, made))
        for index in range(rng.choice([0, 1, 1, 2])):
            happened = time_ms + rng.randrange(0, 1_200)
            told = outcome(
                f"d{number}" if rng.random() < 0.97 else f"x{number}",
                happened,
                rng.choice([0.0, 0.5, 1.0]),
                f"o{index}",
            )
            timed += [(happened + rng.random() * 90, told)] * rng.choice([1, 1, 1, 2])
    return [record for _, record in sorted(timed, key=lambda item: item[0])]


def result(log: EmbeddedLog) -> tuple[dict[str, tuple[float, bool]], Counter[str], Counter[str]]:
    """Feedback, the sums of the accounting over all points, and dead letters by reason.

    The sums, because a duplicate that is read before its decision belongs to no decision point yet, and in which
    order two topics are read is not promised.
    """
    sums: Counter[str] = Counter()
    for book in without_time(read_accounting(log)).values():
        sums.update({descriptor.name: value for descriptor, value in book.ListFields()})
    return feedback_of(log), sums, Counter(letter.reason for letter in letters_of(log))


@pytest.mark.parametrize("fault", ["before", "after", "read", "restart"])
def test_faults_and_restarts_change_nothing(tmp_path: Path, fault: str) -> None:
    records = script(11, 400)
    results = []
    for name in ("sound", fault):
        clock, rng = Clock(), random.Random(3)
        with closing(Faulty(tmp_path / name, fsync=False)) as log:
            log.create(topics(PARTITIONS, 10**13))
            role = JoinerRole(log, POINTS, clock, batch=50)
            faults = 0
            for start in range(0, len(records), 20):
                append(log, *records[start : start + 20])
                clock.now_ms = max(clock.now_ms, *(record.time_ms for record in records[start : start + 20]))
                again = True
                while again:
                    if name == "restart" and rng.random() < 0.3:
                        role.close()  # what it had not committed is gone with it
                        role = JoinerRole(log, POINTS, clock, batch=50)
                        faults += 1
                    elif name != "sound" and rng.random() < 0.3:
                        log.fault = fault
                    try:
                        again = role.step() > 0
                    except LogError:
                        faults += 1
                log.fault = ""
                for book in read_accounting(log).values():
                    assert book.decisions == book.feedback + book.pending
                assert without_time(role.accounting()) == without_time(read_accounting(log))
            for _ in range(3):
                clock.now_ms += 10_000
                settle(role)
            results.append(result(log))
            assert faults == 0 if name == "sound" else faults > 5
    assert results[0] == results[1]
    feedback, sums, _ = results[0]
    assert len(feedback) == sums["decisions"] == 400
    assert (
        min(sums[name] for name in ("late_outcomes", "duplicate_outcomes", "duplicate_decisions", "dead_letters")) > 5
    )
    assert sums["pending"] == 0


def test_another_member_goes_on_where_one_was_killed(log: EmbeddedLog, tmp_path: Path, clock: Clock) -> None:
    first = JoinerRole(log, POINTS, clock)
    append(log, decision("a", 0), outcome("a", 10, 0.5), decision("b", 20))
    first.step()
    with closing(EmbeddedLog(tmp_path / "log", fsync=False)) as elsewhere:
        second = JoinerRole(elsewhere, POINTS, clock)
        clock.now_ms = 5_000
        assert second.step() == 0
        assert feedback_of(log) == {}  # it stands by: the windows are not its own
        first.close()
        append(log, outcome("b", 30, 1.0))
        second.step()
        assert feedback_of(log) == {"a": (0.5, False), "b": (1.0, False)}
        assert without_time(second.accounting()) == {"page": JoinAccounting(decisions=2, feedback=2)}
    assert log.committed(JOIN)[TopicPartition(DECISIONS, 0)] == log.ends(DECISIONS)[0]


def test_accounting_is_found_without_reading_all_state(log: EmbeddedLog, role: JoinerRole, tmp_path: Path) -> None:
    assert read_accounting(log) == {}
    append(log, *(decision(f"d{n}", n) for n in range(3_000)))
    settle(role)
    reads: list[int] = []

    class Counting(EmbeddedLog):
        def read(self, topic: str, partition: int, start: int = 0, max_records: int = 1_000) -> list[Record]:
            records = super().read(topic, partition, start, max_records)
            reads.append(len(records))
            return records

    with closing(Counting(tmp_path / "log")) as counting:
        assert read_accounting(counting)["page"].decisions == 3_000
    assert sum(reads) <= 3 * 4


def test_accounting_is_whole_for_many_decision_points(log: EmbeddedLog, clock: Clock) -> None:
    points = {f"p{number}": RewardConfig() for number in range(600)}  # more than one look at the end shows
    role = JoinerRole(log, points, clock)
    append(log, *(decision(f"d{number}", 0, f"p{number}") for number in range(600)))
    append(log, *(decision(f"e{number}", 0, "p0") for number in range(30)))
    settle(role)
    assert read_accounting(log) == role.accounting()
    assert len(read_accounting(log)) == 600


def test_more_windows_than_fit_in_a_transaction_are_closed_in_several(
    log: EmbeddedLog, clock: Clock, tmp_path: Path
) -> None:
    role = JoinerRole(log, POINTS, clock, batch=40, swap=tmp_path / "swap", max_hot=30)
    append(log, *(decision(f"d{n}", 0) for n in range(500)), *(outcome(f"d{n}", 10, 1.0) for n in range(0, 500, 2)))
    while role.step():
        pass
    assert role.pending() == 500
    before, sizes, write = role.commits, [], log.write

    def spy(writer, messages, offsets):  # type: ignore[no-untyped-def]
        sizes.append(sum(len(its) for place, its in messages.items() if place.topic.name == FEEDBACK))
        write(writer, messages, offsets)

    log.write = spy  # type: ignore[method-assign]
    clock.now_ms = 1_100
    role.step()
    assert (sum(sizes), role.commits - before) == (500, len(sizes))
    assert max(sizes) <= 40 * PARTITIONS
    assert feedback_of(log) == {f"d{n}": (float(n % 2 == 0), n % 2 == 1) for n in range(500)}
    role.close()


def test_a_crash_between_two_such_transactions_repeats_and_loses_nothing(tmp_path: Path, clock: Clock) -> None:
    with closing(Faulty(tmp_path / "log", fsync=False)) as log:
        log.create(topics(1, 10**13))
        role = JoinerRole(log, POINTS, clock, batch=40)
        append(log, *(decision(f"d{n}", 0) for n in range(200)))
        settle(role)
        clock.now_ms = 1_100
        commits = role.commits
        while role.commits == commits:
            log.fault = "before"
            with pytest.raises(LogError):
                role.step()
            assert not log.fault
            write, count = log.write, iter(range(3))

            def one(*args, write=write, count=count):  # type: ignore[no-untyped-def]
                if next(count) == 2:
                    raise LogError("the disk is full")
                write(*args)

            log.write = one  # type: ignore[method-assign]
            with pytest.raises(LogError):
                role.step()
            log.write = write  # type: ignore[method-assign]
        assert 0 < len(feedback_of(log)) < 200
        role.close()
        role = JoinerRole(log, POINTS, clock, batch=40)  # its clocks are those of the last commit
        clock.now_ms = 0
        settle(role)
        assert feedback_of(log) == {f"d{n}": (0.0, True) for n in range(200)}


def test_what_is_dated_far_ahead_is_put_aside_and_moves_no_clock(
    log: EmbeddedLog, role: JoinerRole, clock: Clock
) -> None:
    clock.now_ms = 1_000
    append(log, decision("a", 900), decision("b", 301_001), outcome("a", 301_000, 1.0), outcome("a", 3_601_000, 0.5))
    settle(role)
    letters = {letter.key: letter for letter in letters_of(log)}
    assert {key: letter.reason for key, letter in letters.items()} == {b"b": "invalid", b"a": "invalid"}
    for words in ("300001 ms ahead", "clock of the join (1000)", "300000", "replay"):
        assert words in letters[b"b"].detail
    assert role.skewed == 2
    assert feedback_of(log) == {}
    assert max(role.watermarks().values()) == 1_000
    assert read_accounting(log)["page"].late_outcomes == 1  # the one that is not too far ahead


def put(log: EmbeddedLog, *items: tuple[bytes, bytes], partition: int = 0) -> None:
    """Write into the state from outside."""
    with log.transaction(JOIN) as transaction:
        for key, value in items:
            transaction.send(Message(JOIN_STATE, key, value, 0, partition=partition))


def test_state_of_another_version_is_refused_with_a_remedy(log: EmbeddedLog, role: JoinerRole) -> None:
    put(log, (b"\xffjoin/2/head", b"state"))
    for read in (role.step, lambda: read_accounting(log)):
        with pytest.raises(LogError, match=r"join/2/head.*another version.*Run that version"):
            read()


def test_a_damaged_block_is_refused_with_a_remedy(log: EmbeddedLog, role: JoinerRole, clock: Clock) -> None:
    append(log, *(decision(f"d{n}", 0) for n in range(20)))
    settle(role)
    role.close()
    block = next(record for record in contents(log, JOIN_STATE) if record.key != HEAD_KEY)
    put(log, (block.key or b"", b"\xff\xfe"), partition=block.partition)
    with pytest.raises(LogError, match=r"join_state.*log\.topic_prefix.*block 1 is damaged.*from a copy.*delete this"):
        JoinerRole(log, POINTS, clock).step()


def test_foreign_records_in_the_state_are_ignored_and_told(
    log: EmbeddedLog, role: JoinerRole, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each restore; also behind the last head, more of them than one look for it takes, and with no head."""
    names = [f"d{n}" for n in range(60)]
    append(log, *(decision(name, 0) for name in names))
    settle(role)
    book = read_accounting(log)
    role.close()
    end = log.ends(JOIN_STATE)[1]
    put(log, *((b"foreign%d" % n, b"\xff\xfe") for n in range(500)), partition=1)
    assert read_accounting(log) == book
    again = JoinerRole(log, POINTS, clock)
    append(log, *(outcome(name, 50, 1.0) for name in names))
    settle(again)
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    for words in ("join_state", "log.topic_prefix", "partition 1 ", " 500 records", f"offset {end}."):
        assert words in told.getMessage()
    clock.now_ms = 1_200
    settle(again)
    assert feedback_of(log) == dict.fromkeys(names, (1.0, False))


def test_foreign_records_where_there_is_no_state_yet_are_told(
    log: EmbeddedLog, role: JoinerRole, caplog: pytest.LogCaptureFixture
) -> None:
    put(log, (b"foreign", b"\xff\xfe"), partition=2)
    assert read_accounting(log) == {}
    append(log, decision("d", 0))
    settle(role)
    assert caplog.text.count("partition 2 has 1 records of somebody else, the first one at offset 0") == 1
    assert role.pending() == 1


def test_a_full_disk_below_the_swap_is_told_and_loses_nothing(log: EmbeddedLog, clock: Clock, tmp_path: Path) -> None:
    blocked = tmp_path / "swap"
    blocked.write_text("in the way")
    role = JoinerRole(log, POINTS, clock, swap=blocked, max_hot=10)
    append(log, *(decision(f"d{n}", 0) for n in range(100)))
    for _ in range(2):
        with pytest.raises(LogError, match="free space"):
            role.step()
    blocked.unlink()
    settle(role)
    clock.now_ms = 1_100
    settle(role)
    assert len(feedback_of(log)) == 100


class Wrapped:
    """A consumer behind which stands another one."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        return self._consumer.poll(max_records, timeout_s)

    def assignment(self) -> frozenset[TopicPartition]:
        return self._consumer.assignment()

    def position(self) -> dict[TopicPartition, int]:
        return self._consumer.position()

    def lag(self) -> dict[TopicPartition, int]:
        return self._consumer.lag()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.pause(partitions)

    def commit(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self._consumer.close()


def behind(log: EmbeddedLog, wrap: Callable[[Consumer], Consumer]) -> EmbeddedLog:
    """Return a log whose consumers stand behind others."""

    class Wrapping(EmbeddedLog):
        def consumer(self, group: str, topics: Sequence[str]) -> Consumer:  # type: ignore[override]
            return wrap(log.consumer(group, topics))

        def __init__(self) -> None:
            self.__dict__ = log.__dict__

    return Wrapping()


class Moving(Wrapped):
    """Loses a partition in the second poll of a step, and has it back in the next one."""

    def __init__(self, consumer: Consumer, number: int) -> None:
        super().__init__(consumer)
        self._number = number
        self._polls = 0
        self._gone = False

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        self._polls += 1
        if self._polls == 1:
            return self._consumer.poll(60, timeout_s)
        self._gone = self._polls == 2
        if self._polls == 3:  # another member has committed nothing meanwhile
            for topic in (DECISIONS, OUTCOMES):
                self._consumer.seek(TopicPartition(topic, self._number), 0)
        return [] if self._gone else self._consumer.poll(max_records, timeout_s)

    def _mine(self, where: TopicPartition) -> bool:
        return not (self._gone and where.partition == self._number)

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(filter(self._mine, self._consumer.assignment()))

    def position(self) -> dict[TopicPartition, int]:
        return {where: at for where, at in self._consumer.position().items() if self._mine(where)}

    def lag(self) -> dict[TopicPartition, int]:
        return {where: lag for where, lag in self._consumer.lag().items() if self._mine(where)}


class Uneven(Wrapped):
    """Gives many outcomes for each decision, as clients do that fetch as many bytes of both.

    Attributes
    ----------
    paused : list of set of int
        What it was told to leave out, by partition.
    stuck : set of int
        Partitions of which it gives no decision although there are some.
    """

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer)
        self.paused: list[set[int]] = []
        self.stuck: set[int] = set()
        self._left_out: frozenset[TopicPartition] = frozenset()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused.append({where.partition for where in partitions})
        assert {where.topic for where in partitions} <= {OUTCOMES}
        self._left_out = frozenset(partitions)

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        records = []
        for where in sorted(self._consumer.assignment()):
            if where not in self._left_out and not (where.topic == DECISIONS and where.partition in self.stuck):
                self._consumer.pause(self._consumer.assignment() - {where})
                records += self._consumer.poll(1 if where.topic == DECISIONS else 12)
        return records or self._consumer.poll(0)


def test_a_partition_lost_in_the_middle_of_a_step_is_not_written(log: EmbeddedLog, clock: Clock) -> None:
    append(log, *(decision(f"d{n}", 0) for n in range(90)), *(outcome(f"d{n}", 10, 1.0) for n in range(90)))
    role = JoinerRole(behind(log, lambda consumer: Moving(consumer, 1)), POINTS, clock)
    role.step()
    committed = log.committed(JOIN)
    assert {where.partition for where in committed} == {0, 2}
    assert log.ends(JOIN_STATE)[1] == 0
    assert sorted(role.watermarks()) == [0, 2]
    settle(role)
    clock.now_ms = 1_100
    settle(role)
    assert feedback_of(log) == {f"d{n}": (1.0, False) for n in range(90)}
    assert read_accounting(log)["page"].duplicate_decisions == 0


def test_outcomes_far_ahead_of_their_decisions_are_held_and_not_committed(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.joiner._HELD", 20)
    monkeypatch.setattr("streaming.joiner._HELD_AGAIN", 5)
    append(log, *(decision(f"d{n}", n) for n in range(300)), *(outcome(f"d{n}", n + 1, 1.0) for n in range(300)))
    consumers: list[Uneven] = []

    def uneven(consumer: Consumer) -> Consumer:
        consumers.append(Uneven(consumer))
        return consumers[-1]

    first = JoinerRole(behind(log, uneven), POINTS, clock, batch=1)
    first.step()  # to get its partitions
    for _ in range(60):
        assert first.step() > 0
        assert waiting_in(log) == 0  # not one of them had to be written
    assert {0, 1, 2} in consumers[0].paused
    committed, positions = log.committed(JOIN), consumers[0].position()
    ahead = {where: positions[where] - committed[where] for where in positions}
    assert all((0 < count < 32) if where.topic == OUTCOMES else count == 0 for where, count in ahead.items())
    assert all(first.lag()[where] == log.ends(where.topic)[where.partition] - committed[where] for where in positions)
    first.close()
    second = JoinerRole(behind(log, uneven), POINTS, clock, batch=1)
    second.step()
    settle(second)
    assert consumers[1].paused[-1] == set()
    clock.now_ms = 1_400
    settle(second)
    assert feedback_of(log) == {f"d{n}": (1.0, False) for n in range(300)}


def test_windows_stay_open_for_outcomes_that_are_held(log: EmbeddedLog, clock: Clock) -> None:
    clock.now_ms = 10**9  # so that all windows would close, were it not for what is still to be joined
    append(log, *(decision(f"d{n}", 1_000 * n) for n in range(90)))
    append(log, *(outcome(f"d{n}", 1_000 * n + 500, 1.0) for n in range(90)))
    role = JoinerRole(behind(log, Uneven), POINTS, clock, batch=1)
    role.step()
    settle(role)
    clock.now_ms += LEAST_PATIENCE_MS  # the last ones were over already when they were read
    settle(role)
    assert feedback_of(log) == {f"d{n}": (1.0, False) for n in range(90)}


def test_what_was_held_when_a_step_failed_is_read_again_once(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, *(decision(f"d{n}", n) for n in range(90)), *(outcome(f"d{n}", n + 1, 1.0) for n in range(90)))
    role = JoinerRole(behind(log, Uneven), POINTS, clock, batch=1)
    role.step()
    role.step()

    def full(*_: object) -> NoReturn:
        raise LogError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedLog, "transaction", full)
        with pytest.raises(LogError, match="no room"):
            role.step()
    settle(role)
    clock.now_ms = 1_400
    settle(role)
    assert feedback_of(log) == {f"d{n}": (1.0, False) for n in range(90)}
    assert read_accounting(log)["page"].duplicate_outcomes == 0


def test_outcomes_are_not_held_for_ever(log: EmbeddedLog, clock: Clock) -> None:
    consumers: list[Uneven] = []

    def uneven(consumer: Consumer) -> Consumer:
        consumers.append(Uneven(consumer))
        consumers[0].stuck = {0, 1, 2}
        return consumers[0]

    append(log, *(decision(f"d{n}", n) for n in range(90)), *(outcome(f"d{n}", n + 1, 1.0) for n in range(90)))
    role = JoinerRole(behind(log, uneven), POINTS, clock, batch=1)
    role.step()  # to get its partitions
    role.step()
    clock.now_ms = 4_999
    role.step()
    assert log.committed(JOIN) == {}
    clock.now_ms = 5_000
    role.step()
    assert waiting_in(log) > 0
    consumers[0].stuck = set()
    settle(role)
    clock.now_ms = 20_000
    settle(role)
    assert feedback_of(log) == {f"d{n}": (1.0, False) for n in range(90)}


@pytest.mark.parametrize("max_hot", [1, 7])
def test_what_is_in_memory_changes_nothing(tmp_path: Path, max_hot: int) -> None:
    records = script(17, 300)
    results = []
    for name in ("memory", "disk"):
        clock = Clock()
        with closing(EmbeddedLog(tmp_path / name, fsync=False)) as log:
            log.create(topics(PARTITIONS, 10**13))
            swap = tmp_path / "swap" if name == "disk" else None
            role = JoinerRole(log, POINTS, clock, batch=100, swap=swap, max_hot=max_hot)
            for start in range(0, len(records), 40):
                append(log, *records[start : start + 40])
                clock.now_ms = max(clock.now_ms, *(record.time_ms for record in records[start : start + 40]))
                settle(role)
                if start == 400:
                    role.close()
                    role = JoinerRole(log, POINTS, clock, batch=100, swap=swap, max_hot=max_hot)
            for _ in range(3):
                clock.now_ms += 10_000
                settle(role)
            results.append((result(log), contents(log, FEEDBACK), contents(log, LATE)))
            role.close()
    assert results[0] == results[1]
    assert len(results[0][1]) == 300


def test_a_crash_in_the_middle_of_a_step_goes_on_with_the_record_after_the_last_written(
    tmp_path: Path, clock: Clock
) -> None:
    with closing(EmbeddedLog(tmp_path / "log", fsync=False)) as log:
        log.create(topics(1, 10**13))
        role = JoinerRole(log, POINTS, clock, batch=100)
        append(log, *(decision(f"d{n}", 0) for n in range(90)), *(decision(f"x{n}", 1) for n in range(90)))
        settle(role)
        # The first outcome closes windows, more than fit in a transaction; others follow in the same step.
        append(log, decision("e", 5_000), *(outcome("e", 5_000, 1.0, f"o{n}") for n in range(20)))
        write, left = log.write, iter([True, False])

        def one(*args):  # type: ignore[no-untyped-def]
            if not next(left):
                raise LogError("the disk is full")
            write(*args)

        log.write = one  # type: ignore[method-assign]
        with pytest.raises(LogError):
            role.step()
        log.write = write  # type: ignore[method-assign]
        assert len(feedback_of(log)) == 100
        assert log.committed(JOIN)[TopicPartition(OUTCOMES, 0)] == 1
        settle(role)
        clock.now_ms = 6_100
        settle(role)
        assert len(feedback_of(log)) == 181
        assert feedback_of(log)["e"] == (20.0, False)
