"""What the client librdkafka promises beyond the contract: what dies, sleeps or is refused neither loses nor repeats.

``python -m tests.integration.test_librdkafka SETTINGS POINT`` is a member of the group: it copies what it reads in one
transaction, stops before POINT, says ``stopped``, and goes on with the next line. A point is a method of the producer,
or ``copy``: before the transaction.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import confluent_kafka
import pytest

from engine.errors import LogError
from streaming.kafka import KafkaLog
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.librdkafka_options import appender_options, member_options, writer_options
from streaming.kafka.librdkafka_producer import LibrdkafkaAppender, LibrdkafkaWriter
from streaming.kafka.settings import KafkaSecurity, KafkaSettings
from streaming.log import Consumer, Log, Message, Record, Topic, TopicPartition

SOURCE, SINK, GROUP = "source", "sink", "copier"
TOPICS = [Topic(SOURCE, "source", 2), Topic(SINK, GROUP, 2)]

Settings = Callable[..., KafkaSettings]


@pytest.fixture
def settings(kafka_bootstrap: str) -> Settings:
    """Settings of one log that no other test uses; short times, and whatever else is asked for."""
    prefix = f"librdkafka-{secrets.token_hex(4)}."

    def build(**changes: object) -> KafkaSettings:
        return KafkaSettings.model_validate(
            {
                "bootstrap_servers": [kafka_bootstrap],
                "client": "librdkafka",
                "topic_prefix": prefix,
                "heartbeat_interval": 100,
                "session_timeout": 6_000,
                "transaction_timeout": 5_000,
                **changes,
            }
        )

    return build


@pytest.fixture
def log(settings: Settings) -> Iterator[KafkaLog]:
    with closing(KafkaLog(settings())) as log:
        log.create(TOPICS)
        yield log


def feed(log: Log, start: int, stop: int) -> list[int]:
    log.append([Message(SOURCE, b"key-%d" % number, b"%d" % number, number) for number in range(start, stop)])
    return list(range(start, stop))


def contents(log: Log) -> list[int]:
    """What readers see in the sink."""
    found = []
    for partition in log.ends(SINK):
        start = 0
        while batch := log.read(SINK, partition, start):
            found += [int(record.value or b"") for record in batch]
            start = batch[-1].offset + 1
    return sorted(found)


def sent_anyhow(settings: KafkaSettings) -> int:
    """How far the sink goes, be it committed or not."""
    with closing(KafkaBroker(settings)) as broker:
        return sum(broker.high_watermarks(broker.all_partitions([SINK])).values())


def copy(log: Log, consumer: Consumer, records: list[Record]) -> None:
    with log.transaction(GROUP) as transaction:
        for record in records:
            transaction.send(Message(SINK, record.key, record.value, record.timestamp_ms))
        transaction.commit_offsets(consumer.position())


def copy_all(log: Log, consumer: Consumer, count: int) -> None:
    """Copy ``count`` records, each poll in a transaction."""
    copied = 0
    deadline = time.monotonic() + 60.0
    while copied < count:
        assert time.monotonic() < deadline, f"{copied} of {count} records after 60 s"
        if records := consumer.poll(timeout_s=0.1):
            copy(log, consumer, records)
            copied += len(records)
    assert consumer.poll() == []


def take(consumer: Consumer, count: int) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + 60.0
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records after 60 s"
        records += consumer.poll(timeout_s=0.1)
    return records


@contextmanager
def member(settings: KafkaSettings, point: str) -> Iterator[subprocess.Popen[str]]:
    """A member in a process of its own, stopped before ``point``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.test_librdkafka", settings.model_dump_json(), point],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("point", ["send_offsets_to_transaction", "commit_transaction"])
@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_what_was_killed_between_send_and_commit_leaves_nothing(log: KafkaLog, settings: Settings, point: str) -> None:
    sent = feed(log, 0, 40)
    # None of these times could pass during the test: what ends the transaction is its successor.
    lasting = settings(instance_id="copier-0", transaction_timeout=600_000, session_timeout=300_000)
    with member(lasting, point) as victim:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert sent_anyhow(settings()) == 40
    assert contents(log) == []
    assert log.committed(GROUP) == {}
    with closing(KafkaLog(lasting)) as again:
        again.create(TOPICS)
        copy_all(again, again.consumer(GROUP, [SOURCE]), 40)
    assert contents(log) == sent


@pytest.mark.slow
@pytest.mark.parametrize("point", ["copy", "send_offsets_to_transaction", "commit_transaction"])
@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_a_zombie_that_wakes_is_fenced(log: KafkaLog, settings: Settings, point: str) -> None:
    sent = feed(log, 0, 40)
    with member(settings(), point) as zombie:
        zombie.send_signal(signal.SIGSTOP)
        consumer = log.consumer(GROUP, [SOURCE])
        copy_all(log, consumer, 40)  # waits for the session of the zombie, and for its transaction
        position = consumer.position()
        consumer.close()  # a group without members takes offsets from anybody, and an expelled member is nobody
        zombie.send_signal(signal.SIGCONT)
        time.sleep(1.0)  # it hears that it is expelled
        said, _ = zombie.communicate("go on\n")
        assert [line.split()[0] for line in said.splitlines()] == ["LogError", "LogError"]
    assert contents(log) == sent
    assert log.committed(GROUP) == position


@pytest.mark.kafka
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_member_that_was_expelled_cannot_commit_and_notices(log: KafkaLog, settings: Settings) -> None:
    sent = feed(log, 0, 40)
    with closing(KafkaLog(settings(max_poll_interval=6_000))) as sleeper:
        sleeper.create(TOPICS)
        consumer = sleeper.consumer(GROUP, [SOURCE])
        records = take(consumer, 40)

        def refused() -> None:
            with pytest.raises(LogError, match=r"another member of the group"):
                copy(sleeper, consumer, records)
            with pytest.raises(LogError, match=r"another member of the group"):
                consumer.commit()

        time.sleep(7.0)
        refused()  # though the group is empty by now, and such a group takes offsets from anybody
        assert log.committed(GROUP) == {}
        assert contents(log) == []
        other = log.consumer(GROUP, [SOURCE])
        copy_all(log, other, 40)
        refused()
        assert contents(log) == sent
        assert sleeper.aborts(GROUP) == 2

        other.close()
        assert consumer.poll(timeout_s=10.0) == []
        assert consumer.assignment() == frozenset()
        more = feed(log, 40, 60)
        copy_all(sleeper, consumer, 20)  # from where the other one was
        assert contents(log) == sent + more


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_a_partition_that_stays_goes_on_where_it_is(log: KafkaLog, settings: Settings) -> None:
    feed(log, 0, 40)
    first = log.consumer(GROUP, [SOURCE])
    take(first, 40)
    before = first.position()
    with closing(KafkaLog(settings())) as other:
        second = other.consumer(GROUP, [SOURCE])
        for _ in range(300):
            assert first.poll(timeout_s=0.05) == []  # nothing was committed, and nothing comes again
            if second.poll(timeout_s=0.05):
                break
        assert len(first.assignment()) == len(second.assignment()) == 1
        (kept,) = first.assignment()
        assert first.position() == {kept: before[kept]}
        more = feed(log, 40, 80)
        assert {int(record.value or b"") for record in first.poll(timeout_s=5.0)} <= set(more)
        assert (log.rebalances(GROUP), other.rebalances(GROUP)) == (2, 1)


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_two_members_of_different_clients_share_a_group(log: KafkaLog, settings: Settings) -> None:
    """One installation can change its client member by member."""
    with closing(KafkaLog(settings(client="kafka-python"))) as other:
        members = [log.consumer(GROUP, [SOURCE]), other.consumer(GROUP, [SOURCE])]
        for _ in range(300):
            if [each.poll(timeout_s=0.05) for each in members] and all(len(e.assignment()) == 1 for e in members):
                break
        sent = feed(log, 0, 40)
        found = [record for each in members for record in take(each, 1) + each.poll()]
        assert sorted(int(record.value or b"") for record in found) == sent


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_two_processes_of_one_instance_id_are_told(log: KafkaLog, settings: Settings) -> None:
    feed(log, 0, 10)
    with (
        closing(KafkaLog(settings(instance_id="one"))) as first,
        closing(KafkaLog(settings(instance_id="one"))) as twin,
    ):
        for each in (first, twin):
            each.create(TOPICS)
        consumer = first.consumer(GROUP, [SOURCE])
        copy_all(first, consumer, 10)
        feed(log, 10, 20)
        copy_all(twin, twin.consumer(GROUP, [SOURCE]), 10)
        with pytest.raises(LogError, match="same instance_id"):
            copy_all(first, consumer, 10)


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_what_the_broker_refuses_is_told_and_the_next_is_taken(log: KafkaLog, settings: Settings) -> None:
    large = settings(max_message_bytes=16_000_000)  # declared by nobody: the topic's own limit is half of that
    with closing(KafkaLog(large)) as sender:
        sender._topics = {topic.name: topic for topic in TOPICS}
        huge = Message(SINK, b"k", bytes(12_000_000), 0)
        with pytest.raises(LogError, match=r"append records .*raise max_message_bytes here and max.message.bytes"):
            sender.append([Message(SOURCE, b"k", bytes(12_000_000), 0)])

        def write(*messages: Message) -> None:
            with sender.transaction(GROUP) as transaction:
                for message in messages:
                    transaction.send(message)

        with pytest.raises(LogError, match=r"commit a transaction .*raise max_message_bytes here"):
            write(Message(SINK, b"k", b"1", 0), huge)
        write(Message(SINK, b"k", b"2", 0))
        sender.append([Message(SOURCE, b"k", b"3", 0)])
    assert contents(log) == [2]
    assert sum(len(log.read(SOURCE, number)) for number in range(2)) == 1


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_nothing_is_left_after_close(settings: Settings) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def work() -> None:
        with closing(KafkaLog(settings())) as log:
            log.create(TOPICS)
            feed(log, 0, 10)
            consumer = log.consumer(GROUP, [SOURCE])
            copy(log, consumer, take(consumer, 1))

    work()
    before = open_files(), threads()
    for _ in range(3):
        work()
    # A closed client's last threads end on their own, a moment after it: waited for, since a leak would stay.
    deadline = time.monotonic() + 30
    while (open_files() > before[0] or threads() > before[1]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files() <= before[0]
    assert threads() <= before[1]


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_a_former_member_is_not_waited_for(log: KafkaLog, settings: Settings) -> None:
    """Who is told to be gone keeps no partition for the rest of its session, which the test would not outlast."""
    lasting = settings(session_timeout=300_000)
    sent = feed(log, 0, 40)
    with closing(KafkaLog(lasting)) as sleeper:
        sleeper.create(TOPICS)
        former = sleeper.consumer(GROUP, [SOURCE])
        take(former, 1)
        member = former._member  # type: ignore[attr-defined]
        with closing(KafkaBroker(lasting)) as broker:
            broker.remove_member(GROUP, member.member_id)
            broker.remove_member(GROUP, member.member_id)  # nothing happens if it is gone already
        consumer = log.consumer(GROUP, [SOURCE])
        assert sorted(int(record.value or b"") for record in take(consumer, 40)) == sent


def test_a_broker_that_is_away_is_named_with_the_reason() -> None:
    settings = KafkaSettings.model_validate(
        {"bootstrap_servers": ["127.0.0.1:1"], "request_timeout": 1_000, "delivery_timeout": 2_000}
    )
    broker = KafkaBroker(settings)
    message = (TopicPartition(SOURCE, 0), Message(SOURCE, b"k", b"v", 0))
    reason = r"Kafka at 127\.0\.0\.1:1: cannot {} \(.*(refused|down).*\); check that the broker runs"
    with (
        closing(LibrdkafkaAppender(broker)) as appender,
        pytest.raises(LogError, match=reason.format("append records")),
    ):
        appender.append([message])
    with (
        closing(LibrdkafkaWriter(broker, GROUP, "writer")) as writer,
        pytest.raises(LogError, match=reason.format("begin transactions")),
    ):
        writer.commit([message], {}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"request_timeout": 500_000, "delivery_timeout": 900_000, "transaction_timeout": 1_000},
        {"max_message_bytes": 2_000_000_000},
        {"max_poll_interval": 1_000},
        {"compression": "gzip"},
        {
            "security": {
                "protocol": "sasl_ssl",
                "mechanism": "SCRAM-SHA-256",
                "username": "u",
                "password": "secret",
                "check_hostname": False,
            }
        },
    ],
)
def test_librdkafka_takes_what_the_settings_allow(changes: dict[str, object]) -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": ["127.0.0.1:1"], **changes})
    quiet = {"error_cb": lambda error: None, "log_level": 0}
    confluent_kafka.Consumer(member_options(settings, "group", "instance") | quiet).close()
    for options in (appender_options(settings), writer_options(settings, "id")):
        confluent_kafka.Producer(options | quiet)


def test_security_is_passed_on() -> None:
    security = KafkaSecurity.model_validate(
        {
            "protocol": "sasl_ssl",
            "mechanism": "PLAIN",
            "username": "u",
            "password": "secret",
            "ca_file": "ca.pem",
            "certificate_file": "me.pem",
            "key_file": "me.key",
            "key_password": "hidden",
        }
    )
    options = appender_options(KafkaSettings(bootstrap_servers=["a:1", "b:2"], security=security))
    expected = {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "secret",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "me.pem",
        "ssl.key.location": "me.key",
        "ssl.key.password": "hidden",
        "ssl.endpoint.identification.algorithm": "https",
    }
    assert {name: options.get(name) for name in expected} == expected


def main() -> None:
    settings, point = sys.argv[1:]

    def stop() -> None:
        print("stopped", flush=True)
        sys.stdin.readline()

    class Stopping(confluent_kafka.Producer):
        """Sends what it has before it stops."""

    def stopping(self: Stopping, *arguments: object) -> None:
        self.flush()
        stop()
        getattr(super(Stopping, self), point)(*arguments)

    if point != "copy":
        setattr(Stopping, point, stopping)
        confluent_kafka.Producer = Stopping  # type: ignore[misc]
    log = KafkaLog(KafkaSettings.model_validate_json(settings))
    log.create(TOPICS)
    consumer = log.consumer(GROUP, [SOURCE])
    records = take(consumer, 40)
    if point == "copy":
        stop()
    steps: list[Callable[[], None]] = [lambda: copy(log, consumer, records), consumer.commit]
    for step in steps:
        try:
            step()
        except LogError as error:
            print(f"LogError {error}", flush=True)
    log.close()


if __name__ == "__main__":
    main()
