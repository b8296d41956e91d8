"""What every log promises, whichever it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import LogError
from streaming.embedded import EmbeddedLog
from streaming.kafka import KafkaLog
from streaming.kafka.settings import ClientName, KafkaSettings
from streaming.log import Consumer, Log, Message, Record, Topic, TopicPartition

#: How to open a log. Opened twice, it is the same log.
Open = Callable[[], Log]


def embedded(request: pytest.FixtureRequest) -> Open:
    directory: Path = request.getfixturevalue("tmp_path") / "log"
    return lambda: EmbeddedLog(directory)


def on_kafka(request: pytest.FixtureRequest, client: ClientName = "kafka-python") -> Open:
    settings = KafkaSettings(
        bootstrap_servers=[request.getfixturevalue("kafka_bootstrap")],
        client=client,
        topic_prefix=f"contract-{secrets.token_hex(4)}.",
        heartbeat_interval=100,
        session_timeout=6_000,
    )
    return lambda: KafkaLog(settings)


def on_librdkafka(request: pytest.FixtureRequest) -> Open:
    return on_kafka(request, "librdkafka")


LOGS: dict[str, Callable[[pytest.FixtureRequest], Open]] = {
    "embedded": embedded,
    "kafka": on_kafka,
    "librdkafka": on_librdkafka,
}
ON_A_BROKER = [pytest.mark.kafka, pytest.mark.timeout(900)]

PARTITIONS = 3


class World:
    """A log with topics and roles of names that no other test uses: a broker is shared."""

    def __init__(self, open_log: Open) -> None:
        self._open = open_log
        self._opened: list[Log] = []
        tag = secrets.token_hex(4)
        self.source, self.sink = f"source-{tag}", f"sink-{tag}"
        self.input = Topic(f"input-{tag}", self.source, PARTITIONS)
        self.output = Topic(f"output-{tag}", self.sink, PARTITIONS)
        self.state = Topic(f"state-{tag}", self.sink, PARTITIONS, compacted=True)
        self.topics = [self.input, self.output, self.state]
        self.log = self.open()
        self.log.create(self.topics)

    def open(self) -> Log:
        """Open the log once more, as another process would."""
        self._opened.append(self._open())
        return self._opened[-1]

    def close(self) -> None:
        for log in self._opened:
            log.close()

    def feed(self, count: int, start: int = 0) -> list[bytes]:
        """Append records with the values ``start`` ... and twenty keys; return the values."""
        values = [b"%d" % number for number in range(start, start + count)]
        self.log.append([Message(self.input.name, b"key-%d" % (int(v) % 20), v, int(v)) for v in values])
        return values

    def consumer(self) -> Consumer:
        return self.log.consumer(self.sink, [self.input.name])

    def contents(self, topic: Topic) -> list[Record]:
        records: list[Record] = []
        for partition in range(topic.partitions):
            start = 0
            while batch := self.log.read(topic.name, partition, start):
                records += batch
                start = batch[-1].offset + 1
        return records

    def folded(self, topic: Topic) -> dict[bytes | None, bytes]:
        """The state in a compacted topic: a log may compact at once or later."""
        state: dict[bytes | None, bytes | None] = {record.key: record.value for record in self.contents(topic)}
        return {key: value for key, value in state.items() if value is not None}


@pytest.fixture(
    params=["embedded", *(pytest.param(client, marks=ON_A_BROKER) for client in ("kafka", "librdkafka"))],
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(LOGS[request.param](request))
    yield world
    world.close()


def collect(consumers: list[Consumer], count: int) -> list[list[Record]]:
    """Poll in turn until ``count`` records are held; then nothing more may come.

    A member drops what it holds of a partition that is not assigned after a poll, and of no other one: what stays with
    its member may not come again.
    """
    held: list[dict[TopicPartition, list[Record]]] = [{} for _ in consumers]

    def total() -> int:
        return sum(len(records) for mine in held for records in mine.values())

    def poll(consumer: Consumer, mine: dict[TopicPartition, list[Record]], timeout_s: float) -> int:
        polled = consumer.poll(timeout_s=timeout_s)
        for where in mine.keys() - consumer.assignment():
            del mine[where]
        for record in polled:
            records = mine.setdefault(TopicPartition(record.topic, record.partition), [])
            assert not records or record.offset > records[-1].offset, "read again, and never lost"
            records.append(record)
        return len(polled)

    deadline = time.monotonic() + 60.0
    quiet = 0
    while total() < count or quiet < len(consumers):
        assert time.monotonic() < deadline, f"{total()} of {count} records after 60 s"
        for consumer, mine in zip(consumers, held, strict=True):
            quiet = 0 if poll(consumer, mine, 0.0 if total() >= count else 0.1) else quiet + 1
    assert total() == count
    return [[record for records in mine.values() for record in records] for mine in held]


def share(first: Consumer, second: Consumer, everything: set[TopicPartition]) -> None:
    """Poll until the members have all partitions between them, each one once.

    A log may leave all with the first until it goes: that has to last for some polls.
    """
    lasted = 0
    for _ in range(300):
        assert first.poll(timeout_s=0.05) == second.poll(timeout_s=0.05) == []
        mine, others = first.assignment(), second.assignment()
        lasted = lasted + 1 if mine | others == everything and not mine & others else 0
        if lasted and ((mine and others) or lasted == 10):
            return
    pytest.fail("the group does not balance")


def values(records: list[Record]) -> list[bytes]:
    return [record.value or b"" for record in records]


def test_is_a_log(world: World) -> None:
    assert isinstance(world.log, Log)


def test_records_come_back_as_they_were_sent(world: World) -> None:
    headers = (("content-type", b"application/protobuf"), ("any", bytes(range(256))))
    world.log.append([Message(world.input.name, b"\x00\xff", b"\x00value", 1_700_000_000_123, headers, partition=2)])
    (record,) = world.log.read(world.input.name, 2)
    assert (record.topic, record.partition, record.timestamp_ms) == (world.input.name, 2, 1_700_000_000_123)
    assert (record.key, record.value, tuple(record.headers)) == (b"\x00\xff", b"\x00value", headers)


@pytest.mark.parametrize(("key", "value"), [(None, b"v"), (b"k", None), (b"", b"")])
def test_a_record_may_lack_key_or_value(world: World, key: bytes | None, value: bytes | None) -> None:
    world.log.append([Message(world.input.name, key, value, 5)])
    (record,) = world.contents(world.input)
    assert (record.key, record.value, tuple(record.headers)) == (key, value, ())


def test_a_key_stays_in_one_partition_and_in_order(world: World) -> None:
    sent = world.feed(200)
    records = world.contents(world.input)
    assert sorted(values(records), key=int) == sent
    for number in range(20):
        mine = [record for record in records if record.key == b"key-%d" % number]
        assert len({record.partition for record in mine}) == 1
        assert [int(v) for v in values(mine)] == sorted(int(v) for v in values(mine))
    assert len({record.partition for record in records}) == PARTITIONS


def test_topics_of_one_size_put_a_key_in_partitions_of_one_number(world: World) -> None:
    keys = [b"id-%d" % number for number in range(50)]
    world.log.append([Message(topic.name, key, b"v", 0) for topic in (world.input, world.output) for key in keys])
    where = [{r.key: r.partition for r in world.contents(topic)} for topic in (world.input, world.output)]
    assert where[0] == where[1]


def test_offsets_grow_and_ends_is_past_the_last(world: World) -> None:
    assert world.log.ends(world.input.name) == dict.fromkeys(range(PARTITIONS), 0)
    world.feed(100)
    for partition, end in world.log.ends(world.input.name).items():
        offsets = [record.offset for record in world.log.read(world.input.name, partition)]
        assert offsets == sorted(set(offsets))
        assert end > offsets[-1]


def test_read_starts_where_it_is_told_and_stops_at_its_limit(world: World) -> None:
    world.log.append([Message(world.input.name, None, b"%d" % n, n, partition=1) for n in range(10)])
    records = world.log.read(world.input.name, 1)
    assert values(world.log.read(world.input.name, 1, records[4].offset, 3)) == [b"4", b"5", b"6"]
    assert world.log.read(world.input.name, 1, records[-1].offset + 1) == []
    assert world.log.read(world.input.name, 0) == []


def test_a_group_resumes_at_its_committed_offsets(world: World) -> None:
    sent = world.feed(60)
    first = world.consumer()
    (records,) = collect([first], 60)
    assert sorted(values(records), key=int) == sent
    first.commit()
    first.close()
    more = world.feed(10, start=60)
    again = world.open().consumer(world.sink, [world.input.name])
    assert sorted(values(collect([again], 10)[0]), key=int) == more


def test_what_was_not_committed_comes_again(world: World) -> None:
    world.feed(30)
    first = world.consumer()
    collect([first], 30)
    first.close()
    assert world.log.committed(world.sink) == {}
    collect([world.consumer()], 30)


def test_groups_do_not_know_each_other(world: World) -> None:
    world.feed(30)
    mine, other = world.consumer(), world.log.consumer(world.source, [world.input.name])
    collect([mine], 30)
    mine.commit()
    collect([other], 30)


def test_poll_is_in_order_and_bounded(world: World) -> None:
    world.feed(100)
    consumer = world.consumer()
    seen: dict[int, list[int]] = {}
    for _ in range(300):
        batch = consumer.poll(max_records=7, timeout_s=0.1)
        assert len(batch) <= 7
        for record in batch:
            seen.setdefault(record.partition, []).append(record.offset)
        if sum(map(len, seen.values())) == 100:
            break
    assert all(offsets == sorted(set(offsets)) for offsets in seen.values())
    assert sum(map(len, seen.values())) == 100


def test_an_empty_poll_means_that_all_was_read(world: World) -> None:
    consumer = world.consumer()
    world.feed(1)
    collect([consumer], 1)
    for number in range(1, 20):
        world.feed(1, start=number)
        (record,) = consumer.poll()  # without any time to wait
        assert record.value == b"%d" % number
        assert consumer.poll() == []
        consumer.seek(TopicPartition(record.topic, record.partition), record.offset)
        assert consumer.poll() == [record]


def test_position_seek_and_lag(world: World) -> None:
    world.feed(90)
    consumer = world.consumer()
    collect([consumer], 90)
    assert set(consumer.lag().values()) == {0}
    where = TopicPartition(world.input.name, 1)
    records = world.log.read(*(where.topic, where.partition))
    consumer.seek(where, records[-5].offset)
    assert consumer.position()[where] == records[-5].offset
    assert consumer.lag()[where] == 5
    assert consumer.poll(timeout_s=10.0)[0].offset == records[-5].offset


def test_a_paused_partition_waits_and_goes_on_where_it_was(world: World) -> None:
    consumer = world.consumer()
    world.feed(60)
    collect([consumer], 60)
    paused = TopicPartition(world.input.name, 1)
    consumer.pause([paused, TopicPartition("of-somebody-else", 0)])
    more = world.feed(60, start=60)
    elsewhere = [r for number in (0, 2) for r in world.log.read(world.input.name, number) if r.value in more]
    (others,) = collect([consumer], len(elsewhere))
    assert {record.partition for record in others} == {0, 2}
    assert consumer.assignment() == {TopicPartition(world.input.name, n) for n in range(PARTITIONS)}
    consumer.pause([])
    (late,) = collect([consumer], 60 - len(others))
    assert {record.partition for record in late} == {1}
    assert sorted(values(others + late), key=int) == more


def test_two_members_share_without_overlap_and_one_takes_over(world: World) -> None:
    everything = {TopicPartition(world.input.name, n) for n in range(PARTITIONS)}
    first = world.consumer()
    second = world.open().consumer(world.sink, [world.input.name])
    share(first, second, everything)
    sent = world.feed(80)
    mine, others = collect([first, second], 80)
    assert sorted(values(mine + others), key=int) == sent
    first.commit()
    second.commit()
    first.close()
    more = world.feed(40, start=80)
    assert sorted(values(collect([second], 40)[0]), key=int) == more
    assert second.assignment() == everything


def test_the_partitions_of_one_number_have_one_owner(world: World) -> None:
    topics = [world.input.name, world.output.name]
    first, second = world.log.consumer(world.sink, topics), world.open().consumer(world.sink, topics)
    share(first, second, {TopicPartition(topic, n) for topic in topics for n in range(PARTITIONS)})
    for member in (first, second):
        numbers = [{where.partition for where in member.assignment() if where.topic == topic} for topic in topics]
        assert numbers[0] == numbers[1]


def test_a_transaction_holds_output_state_and_offsets(world: World) -> None:
    world.feed(20)
    consumer = world.consumer()
    (records,) = collect([consumer], 20)
    with world.log.transaction(world.sink) as transaction:
        for record in records:
            transaction.send(Message(world.output.name, record.key, record.value, 0))
            transaction.send(Message(world.state.name, record.key, record.value, 0))
        transaction.commit_offsets(consumer.position())
        assert world.contents(world.output) == []
    assert sorted(values(world.contents(world.output)), key=int) == sorted(values(records), key=int)
    assert len(world.folded(world.state)) == 20
    committed = world.log.committed(world.sink)
    assert {where: committed.get(where) for where in consumer.position()} == consumer.position()


def test_a_partition_that_is_left_out_half_read_goes_on_where_it_was(world: World) -> None:
    """Also when all that others had has been read meanwhile."""
    world.feed(60)
    consumer = world.consumer()
    records: list[Record] = []
    while not records:
        records = consumer.poll(1, timeout_s=0.1)
    half_read = TopicPartition(records[0].topic, records[0].partition)
    consumer.pause([half_read])
    while rest := consumer.poll(timeout_s=0.1):
        assert half_read.partition not in {record.partition for record in rest}
        records += rest
    consumer.pause([])
    while rest := consumer.poll(timeout_s=0.1):
        records += rest
    assert sorted(values(records), key=int) == [b"%d" % number for number in range(60)]


def test_a_log_that_fences_refuses_offsets_of_a_time_before_its_member_lost_the_partitions(world: World) -> None:
    """Also when the member has them back by then: another one may have read from there."""
    if not world.log.fences:
        pytest.skip("this log does not say so")
    world.feed(20)
    consumer = world.consumer()
    collect([consumer], 20)
    everything = set(consumer.assignment())
    late = world.log.transaction(world.sink)
    late.commit_offsets(consumer.position())
    elsewhere = world.open()
    elsewhere.create(world.topics)
    other = elsewhere.consumer(world.sink, [world.input.name])
    deadline = time.monotonic() + 60.0
    # The other one reads what is not committed yet, and commits nothing either.
    while not other.assignment() or consumer.assignment() == everything:
        assert time.monotonic() < deadline, "it does not get any partition"
        consumer.poll(timeout_s=0.05)
        other.poll(timeout_s=0.05)
    other.close()
    while consumer.assignment() != everything:
        assert time.monotonic() < deadline, "it does not get its partitions back"
        consumer.poll(timeout_s=0.05)

    def commit() -> None:
        with late:
            late.send(Message(world.output.name, b"k", b"v", 0))

    with pytest.raises(LogError, match="another member of the group"):
        commit()
    assert world.contents(world.output) == []
    assert world.log.committed(world.sink) == {}


def test_a_failed_transaction_leaves_nothing(world: World) -> None:
    world.feed(20)
    consumer = world.consumer()
    collect([consumer], 20)

    def fail() -> None:
        with world.log.transaction(world.sink) as transaction:
            transaction.send(Message(world.output.name, b"k", b"v", 0))
            transaction.send(Message(world.state.name, b"k", b"v", 0))
            transaction.commit_offsets(consumer.position())
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert world.contents(world.output) == []
    assert world.folded(world.state) == {}
    assert world.log.committed(world.sink) == {}
    with world.log.transaction(world.sink) as transaction:  # and the next one is not harmed
        transaction.send(Message(world.output.name, b"k", b"next", 0))
    assert values(world.contents(world.output)) == [b"next"]


def test_a_reader_comes_to_the_end_of_what_transactions_wrote(world: World) -> None:
    for _ in range(3):
        with world.log.transaction(world.sink) as transaction:
            for number in range(10):
                transaction.send(Message(world.output.name, b"%d" % number, b"v", 0))
    reader = world.log.consumer(world.source, [world.output.name])
    collect([reader], 30)
    assert set(reader.lag().values()) == {0}
    assert {where.partition: at for where, at in reader.position().items()} == world.log.ends(world.output.name)
    reader.commit()
    assert world.log.committed(world.source) == reader.position()


def test_threads_share_a_log(world: World) -> None:
    def work(number: int) -> int:
        for turn in range(10):
            world.log.append([Message(world.input.name, b"%d" % number, b"%d" % turn, 0)])
            with world.log.transaction(world.sink) as transaction:
                transaction.send(Message(world.output.name, b"%d" % number, b"%d" % turn, 0))
        return sum(record.key == b"%d" % number for record in world.contents(world.output))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [10] * 4
    for topic in (world.input, world.output):
        records = world.contents(topic)
        assert [[r.value for r in records if r.key == b"%d" % n] for n in range(4)] == [
            [b"%d" % t for t in range(10)]
        ] * 4


def test_a_transaction_refuses_topics_of_other_writers(world: World) -> None:
    def trespass() -> None:
        with world.log.transaction(world.sink) as transaction:
            transaction.send(Message(world.output.name, b"k", b"v", 0))
            transaction.send(Message(world.input.name, b"k", b"v", 0))

    with pytest.raises(LogError, match=world.source):
        trespass()
    assert world.contents(world.output) == []


def test_compaction_keeps_the_last_record_of_a_key(world: World) -> None:
    with world.log.transaction(world.sink) as transaction:
        for key, value in [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"c", None)]:
            transaction.send(Message(world.state.name, key, value, 0))
    assert world.folded(world.state) == {b"a": b"2", b"b": b"1"}
    with world.log.transaction(world.sink) as transaction:
        for key, value in [(b"b", None), (b"c", b"9"), (b"none", None)]:
            transaction.send(Message(world.state.name, key, value, 0))
    assert world.folded(world.state) == {b"a": b"2", b"c": b"9"}


def test_offsets_of_a_compacted_topic_never_repeat(world: World) -> None:
    ends = []
    for value in (b"1", None, b"2", None):
        with world.log.transaction(world.sink) as transaction:
            transaction.send(Message(world.state.name, b"k", value, 0, partition=0))
        ends.append(world.log.ends(world.state.name)[0])
        assert world.open().ends(world.state.name)[0] == ends[-1]
    assert ends == sorted(set(ends))


def test_creating_again_changes_nothing(world: World) -> None:
    world.feed(10)
    world.open().create(world.topics)
    assert len(world.contents(world.input)) == 10


@pytest.mark.parametrize("change", ["partitions", "compacted"])
def test_a_topic_cannot_change(world: World, change: str) -> None:
    old = world.input
    new = Topic(old.name, old.writer, 5 if change == "partitions" else old.partitions, compacted=change == "compacted")
    with pytest.raises(LogError, match=rf"{old.name}.*{change}"):
        world.log.create([new])


def test_unknown_names_are_named(world: World) -> None:
    with pytest.raises(LogError, match="no-such-topic"):
        world.log.append([Message("no-such-topic", b"k", b"v", 0)])
    with pytest.raises(LogError, match="no-such-topic"):
        world.log.read("no-such-topic", 0)
    with pytest.raises(LogError, match="no-such-topic"):
        world.log.ends("no-such-topic")
    with pytest.raises(LogError, match="no partition 3"):
        world.log.append([Message(world.input.name, b"k", b"v", 0, partition=PARTITIONS)])
    assert world.log.committed(f"nobody-{world.sink}") == {}


def test_everything_is_there_after_reopening(world: World) -> None:
    sent = world.feed(50)
    with world.log.transaction(world.sink) as transaction:
        transaction.commit_offsets({TopicPartition(world.input.name, 0): 3})
    ends = world.log.ends(world.input.name)
    world.log.close()
    world.log = world.open()
    assert sorted(values(world.contents(world.input)), key=int) == sent
    assert world.log.ends(world.input.name) == ends
    assert world.log.committed(world.sink) == {TopicPartition(world.input.name, 0): 3}
