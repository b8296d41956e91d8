"""What the Kafka log promises beyond the contract: nothing is lost or repeated, whatever dies, sleeps or goes away."""

from __future__ import annotations

import json
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import kafka
import pytest

from engine.config import RewardConfig
from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming.embedded import EmbeddedLog
from streaming.joiner import JoinerRole, read_accounting
from streaming.kafka import KafkaLog
from streaming.kafka.settings import KafkaSettings
from streaming.log import Consumer, Log, Message, Record
from streaming.topics import DEAD_LETTERS, DECISIONS, FEEDBACK, JOIN, LATE, OUTCOMES, topics
from tests.integration.kafka_topics import (
    EVERYTHING,
    GROUP,
    SINK,
    SOURCE,
    TOPICS,
    Process,
    Settings,
    contents,
    copy,
    feed,
)
from tests.kafka_sh import RunKafkaSh

# The first test of a run may have to fetch the broker's jars.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


@pytest.fixture
def log(kafka_settings: Settings) -> Iterator[KafkaLog]:
    with closing(KafkaLog(kafka_settings())) as log:
        log.create(TOPICS)
        yield log


@pytest.fixture
def start() -> Iterator[Callable[[KafkaSettings], Process]]:
    started: list[Process] = []

    def run(settings: KafkaSettings) -> Process:
        started.append(Process(settings))
        return started[-1]

    yield run
    for process in started:
        process.end()


def in_the_log_anyhow(settings: KafkaSettings, topic: str) -> int:
    """How many records a reader of everything finds, be they committed or not."""
    with kafka.KafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, isolation_level="read_uncommitted", enable_auto_commit=False
    ) as reader:
        partitions = [kafka.TopicPartition(settings.topic_prefix + topic, number) for number in range(2)]
        reader.assign(partitions)
        reader.seek_to_beginning()
        ends = reader.end_offsets(partitions)
        count = 0
        while any(reader.position(partition) < ends[partition] for partition in partitions):
            count += sum(map(len, reader.poll(100).values()))
    return count


def share(first: Consumer, second: Consumer) -> None:
    """Poll until each has one of the two partitions."""
    for _ in range(300):
        assert first.poll(timeout_s=0.05) == second.poll(timeout_s=0.05) == []
        if len(first.assignment()) == len(second.assignment()) == 1:
            return
    pytest.fail("the group does not balance")


def test_a_member_that_was_expelled_cannot_commit_and_notices(log: KafkaLog, kafka_settings: Settings) -> None:
    sent = feed(log, 0, 40)
    with closing(KafkaLog(kafka_settings(max_poll_interval=1_000))) as sleeper:
        sleeper.create(TOPICS)
        consumer = sleeper.consumer(GROUP, [SOURCE])
        records: list[Record] = []
        while len(records) < 40:
            records += consumer.poll(timeout_s=0.1)
        position = consumer.position()
        other = log.consumer(GROUP, [SOURCE])
        copy(log, other, 40)  # waits until the sleeper has been expelled
        assert other.assignment() == EVERYTHING

        assert consumer.assignment() == EVERYTHING  # as far as it knows

        def commit() -> None:
            with sleeper.transaction(GROUP) as transaction:
                transaction.send(Message(SINK, b"k", b"-1", 0))
                transaction.commit_offsets(position)

        with pytest.raises(LogError, match=r"another member of the group"):
            commit()
        assert sleeper.aborts(GROUP) == 1
        with pytest.raises(LogError, match=r"another member of the group"):
            consumer.commit()
        assert contents(log, SINK) == sent
        assert in_the_log_anyhow(kafka_settings(), SINK) == 41  # it was sent, and aborted

        other.close()
        assert consumer.poll(timeout_s=10.0) == []
        assert consumer.assignment() == frozenset()
        more = feed(log, 40, 60)
        copy(sleeper, consumer, 20)  # from where the other one was
        assert contents(log, SINK) == sent + more


def test_a_partition_that_stays_goes_on_where_it_is(log: KafkaLog, kafka_settings: Settings) -> None:
    feed(log, 0, 40)
    first = log.consumer(GROUP, [SOURCE])
    seen: list[Record] = []
    while len(seen) < 40:
        seen += first.poll(timeout_s=0.1)
    before = first.position()
    with closing(KafkaLog(kafka_settings())) as other:
        second = other.consumer(GROUP, [SOURCE])
        for _ in range(300):
            assert first.poll(timeout_s=0.05) == []  # nothing was committed, and nothing comes again
            second.poll(timeout_s=0.05)
            if len(first.assignment()) == len(second.assignment()) == 1:
                break
        (kept,) = first.assignment()
        assert first.position() == {kept: before[kept]}


def test_a_rebalance_that_ends_between_two_polls_counts(log: KafkaLog, kafka_settings: Settings) -> None:
    with closing(KafkaLog(kafka_settings())) as other:
        members = [log.consumer(GROUP, [SOURCE]), other.consumer(GROUP, [SOURCE])]
        for _ in range(30):
            for member in members:
                assert member.poll() == []
            if all(len(member.assignment()) == 1 for member in members):
                break
            time.sleep(0.2)  # a rebalance takes longer than a poll, and less than this
        generations = [member.member().generation_id for member in members]
        assert generations in ([2, 2], [1, 1])  # one rebalance for each that joined, or one for both together
        counts = log.rebalances(GROUP), other.rebalances(GROUP)
        assert sorted(counts) == [1, generations[0]]  # who came first saw all; on a slow machine it may be either
        members[0].close()
        assert log.rebalances(GROUP) == counts[0]  # those of members that were closed count


def test_a_member_that_cannot_rebalance_for_long_loses_all_and_begins_at_what_is_committed(
    kafka_settings: Settings,
) -> None:
    with closing(KafkaLog(kafka_settings(request_timeout=1_500))) as log, closing(KafkaLog(kafka_settings())) as other:
        log.create(TOPICS)
        first, sleeper = log.consumer(GROUP, [SOURCE]), other.consumer(GROUP, [SOURCE])
        share(first, sleeper)
        (mine,) = first.assignment()
        feed(log, 0, 40)
        while first.poll():
            pass
        assert first.position()[mine] > 0
        feed(log, 40, 80)
        third = log.consumer(GROUP, [SOURCE])
        while first.assignment():
            third.poll(timeout_s=0.1)  # a rebalance begins, and the sleeper takes no part
            assert all(record.offset > 0 for record in first.poll())
        third.close()
        sleeper.close()
        while not first.assignment():
            records = first.poll(timeout_s=0.1)
        assert min(record.offset for record in records if record.partition == mine.partition) == 0


def test_who_takes_over_waits_for_what_is_open(log: KafkaLog, kafka_settings: Settings) -> None:
    feed(log, 0, 10)
    with closing(
        kafka.KafkaProducer(bootstrap_servers=kafka_settings().bootstrap_servers, transactional_id=secrets.token_hex(4))
    ) as other:
        other.init_transactions()
        other.begin_transaction()
        other.send(kafka_settings().topic_prefix + SINK, b"77", b"k").get(10)
        consumer = log.consumer(GROUP, [SOURCE])
        for _ in range(3):
            assert consumer.poll(timeout_s=0.5) == []
            assert consumer.assignment() == frozenset()
        other.commit_transaction()
        assert consumer.poll(timeout_s=30.0)
        assert consumer.assignment() == EVERYTHING
        assert contents(log, SINK) == [77]


def test_nothing_of_what_stayed_is_lost_while_what_is_new_has_to_wait(log: KafkaLog, kafka_settings: Settings) -> None:
    with (
        closing(KafkaLog(kafka_settings())) as leaving,
        closing(
            kafka.KafkaProducer(
                bootstrap_servers=kafka_settings().bootstrap_servers, transactional_id=secrets.token_hex(4)
            )
        ) as other,
    ):
        first, second = log.consumer(GROUP, [SOURCE]), leaving.consumer(GROUP, [SOURCE])
        share(first, second)
        (kept,) = first.assignment()
        other.init_transactions()
        other.begin_transaction()
        other.send(kafka_settings().topic_prefix + SINK, b"77", b"k").get(10)
        second.close()
        seen: list[Record] = []
        for number in range(8):
            feed(log, number, number + 1)
            seen += first.poll(timeout_s=0.1)
            assert first.assignment() == {kept}
        assert seen
        other.commit_transaction()
        while len(seen) < 8:
            seen += first.poll(timeout_s=0.1)
        assert sorted(int(record.value or b"") for record in seen) == list(range(8))
        assert first.assignment() == EVERYTHING


@pytest.mark.parametrize("point", [pytest.param("sent", marks=pytest.mark.slow), "offsets"])
def test_a_zombie_that_wakes_in_its_commit_is_fenced(
    log: KafkaLog, kafka_settings: Settings, start: Callable[[KafkaSettings], Process], point: str
) -> None:
    sent = feed(log, 0, 40)
    zombie = start(kafka_settings())
    assert zombie.ask(f"copy {point}") == "stopped"
    zombie.signal(signal.SIGSTOP)
    consumer = log.consumer(GROUP, [SOURCE])
    copy(log, consumer, 40)  # waits for the session of the zombie, and for its transaction
    assert contents(log, SINK) == sent

    zombie.signal(signal.SIGCONT)
    assert zombie.ask("go on").startswith("LogError")
    assert contents(log, SINK) == sent
    assert log.committed(GROUP) == consumer.position()
    assert in_the_log_anyhow(kafka_settings(), SINK) == 80
    # It lives, and takes its part again.
    more = feed(log, 40, 60)
    consumer.close()
    assert zombie.ask("copy") == "copied 20"
    assert contents(log, SINK) == sent + more


@pytest.mark.slow
def test_what_was_killed_in_mid_transaction_leaves_nothing_and_blocks_readers_for_a_while_only(
    log: KafkaLog, kafka_settings: Settings, start: Callable[[KafkaSettings], Process]
) -> None:
    feed(log, 0, 10)
    victim = start(kafka_settings())
    assert victim.ask("copy offsets") == "stopped"
    victim.signal(signal.SIGKILL)
    assert in_the_log_anyhow(kafka_settings(), SINK) == 10
    log.append([Message(SINK, b"k", b"99", 0, partition=number) for number in (0, 1)])
    assert contents(log, SINK) == []  # an open transaction hides what is behind it
    started = time.monotonic()
    while contents(log, SINK) != [99, 99]:
        # transaction_timeout, and the 10 s in which a broker looks for such transactions; the rest is for this machine
        assert time.monotonic() - started < 5 + 10 + 15
        time.sleep(0.2)
    assert log.committed(GROUP) == {}


def test_with_an_instance_id_a_restart_ends_what_was_left_open(
    log: KafkaLog, kafka_settings: Settings, start: Callable[[KafkaSettings], Process]
) -> None:
    sent = feed(log, 0, 10)
    # None of these times could pass during the test.
    lasting = kafka_settings(instance_id="copier-0", transaction_timeout=600_000, session_timeout=300_000)
    victim = start(lasting)
    assert victim.ask("copy offsets") == "stopped"
    victim.signal(signal.SIGKILL)
    assert contents(log, SINK) == []
    again = start(lasting)
    assert again.ask("copy") == "copied 10"
    assert contents(log, SINK) == sent


def test_two_processes_of_one_instance_id_are_told(log: KafkaLog, kafka_settings: Settings) -> None:
    feed(log, 0, 10)
    with (
        closing(KafkaLog(kafka_settings(instance_id="one"))) as first,
        closing(KafkaLog(kafka_settings(instance_id="one"))) as twin,
    ):
        for each in (first, twin):
            each.create(TOPICS)
        consumer = first.consumer(GROUP, [SOURCE])
        copy(first, consumer, 10)
        feed(log, 10, 20)
        copy(twin, twin.consumer(GROUP, [SOURCE]), 10)
        with pytest.raises(LogError, match="same instance_id"):
            copy(first, consumer, 10)


def test_several_instances_of_a_writer_share_the_work(log: KafkaLog, kafka_settings: Settings) -> None:
    with closing(KafkaLog(kafka_settings())) as other:
        other.create(TOPICS)
        members = [(log, log.consumer(GROUP, [SOURCE])), (other, other.consumer(GROUP, [SOURCE]))]
        share(*(consumer for _, consumer in members))
        sent = feed(log, 0, 200)
        for each, consumer in members:
            count = sum(consumer.lag().values())
            assert 0 < count < 200
            copy(each, consumer, count)
        assert contents(log, SINK) == sent
        assert sum(log.committed(GROUP).values()) == 200


def test_close_ends_a_poll_that_waits(log: KafkaLog) -> None:
    consumer = log.consumer(GROUP, [SOURCE])
    consumer.poll(timeout_s=1.0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(consumer.poll, timeout_s=600.0)
        consumer.close()
        assert waiting.result() == []


@pytest.mark.slow
def test_producer_and_consumer_live_through_a_restart_of_the_broker(
    kafka_of_its_own: tuple[str, RunKafkaSh], kafka_settings: Settings, start: Callable[[KafkaSettings], Process]
) -> None:
    bootstrap, kafka_sh = kafka_of_its_own
    kafka_sh("start")
    process = start(kafka_settings(bootstrap_servers=[bootstrap], request_timeout=1_000, delivery_timeout=2_000))
    assert process.ask("spin") == "at 20"
    kafka_sh("stop")
    time.sleep(2.5)  # an attempt to append fails
    kafka_sh("start")
    for _ in range(3):  # what was under way, and then some that came after the restart
        process.answer()
    process.tell("enough")
    while (line := process.answer()).startswith("at"):
        pass
    result = json.loads(line)
    acknowledged, read = result["acknowledged"], result["read"]
    assert len(acknowledged) >= 40
    assert set(acknowledged) <= set(read)
    assert result["failures"]["append"] > 0
    for key in range(5):
        mine = [number for number in read if number % 5 == key]
        assert list(dict.fromkeys(mine)) == sorted(set(mine))
    # It works on as before, transactions included.
    assert process.ask("copy") == "copied 0"


POINTS = {
    "page": RewardConfig(window=1_000, grace=100, aggregation="sum", default=0.0),
    "mail": RewardConfig(window=5_000, grace=0, aggregation="first", default=0.25),
}


def join(log: Log) -> dict[str, list[tuple[int, bytes, bytes]]]:
    """Run one small scenario through the role that joins; return what it wrote, and its books."""
    rng = random.Random(7)
    log.create(topics(3, 10**12))
    now_ms = 0
    role = JoinerRole(log, POINTS, lambda: now_ms, batch=50)
    while not role.step(timeout_s=0.1) and len(role.lag()) < 6:
        pass
    reports: list[tuple[int, str, bytes]] = []
    for number in range(200):
        at, name = 20 * number, f"d{number}"
        decision = Decision(decision_id=name, decision_point=rng.choice(["page", "mail"]), time_ms=at)
        reports.append((at, DECISIONS, decision.SerializeToString()))
        for _ in range(rng.choice([0, 1, 1, 2])):
            outcome = Outcome(
                decision_id=name, time_ms=at + rng.randrange(8_000), value=rng.random(), outcome_id=f"o{rng.random()}"
            )
            reports += [(outcome.time_ms, OUTCOMES, outcome.SerializeToString())] * rng.choice([1, 1, 2])
    reports += [(1_000 * n, rng.choice([DECISIONS, OUTCOMES]), b"\xff") for n in range(5)]
    reports.append((500, OUTCOMES, Outcome(decision_id="nobody", time_ms=500, value=1.0).SerializeToString()))
    reports.sort(key=lambda report: report[0])
    while reports:
        now_ms += 500
        due = [report for report in reports if report[0] < now_ms]
        del reports[: len(due)]
        log.append(
            [
                Message(
                    topic, Outcome.FromString(value).decision_id.encode() if value != b"\xff" else b"bad", value, at
                )
                for at, topic, value in due
            ]
        )
        while role.step():
            pass
    now_ms += 60_000
    while role.step():
        pass
    role.close()
    written = {
        topic: sorted(
            (partition, record.key or b"", record.value or b"")
            for partition in log.ends(topic)
            for record in log.read(topic, partition, max_records=100_000)
        )
        for topic in (FEEDBACK, LATE, DEAD_LETTERS)
    }
    books = [(0, point.encode(), book.SerializeToString()) for point, book in read_accounting(log).items()]
    return written | {"books": sorted(books), "read": [(0, b"", b"%d" % sum(log.committed(JOIN).values()))]}


def test_the_join_is_the_same_as_on_the_embedded_log(kafka_settings: Settings, tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path / "log", fsync=False)) as embedded:
        expected = join(embedded)
    with closing(KafkaLog(kafka_settings())) as log:
        found = join(log)
    assert len(expected[FEEDBACK]) == 200
    # What is late, and what belongs to no decision any more, depends on the order in which the topics are read: the
    # trials below tests/faults/join compare that, with records for which it does not.
    assert found[FEEDBACK] == expected[FEEDBACK]
