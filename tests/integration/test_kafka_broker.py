"""What Leeway relies on in the broker that ``kafka.sh`` starts: durability, no topics by mistake, three copies."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

# The first test of a run may have to fetch the broker's jars.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


def create_topic(bootstrap: str, partitions: int = 1) -> str:
    name = f"test-{uuid.uuid4().hex}"
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.create_topics({name: {"num_partitions": partitions}}, wait_for_metadata=True)
    return name


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        sent = [producer.send(topic, value=value, partition=0) for value in values]
        for future in sent:
            future.get(timeout=60)


def read_to_end(bootstrap: str, topic: str, isolation: str) -> list[bytes]:
    """Return the values in partition 0 that are visible now."""
    partition = TopicPartition(topic, 0)
    with KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=1_000).values():
                values.extend(record.value for record in records)
    return values


def copy_in_transaction(bootstrap: str, source: str, sink: str, group: str) -> None:
    """Consume 100 records of ``source`` as a member of ``group`` and send them to ``sink``, in one transaction."""
    with (
        KafkaConsumer(
            source,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        ) as consumer,
        KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{group}-0") as producer,
    ):
        values: list[bytes] = []
        while len(values) < 100:
            for records in consumer.poll(timeout_ms=1_000).values():
                values.extend(record.value for record in records)
        producer.init_transactions()
        producer.begin_transaction()
        for value in values:
            producer.send(sink, value=value, partition=0)
        partition = TopicPartition(source, 0)
        read_up_to = OffsetAndMetadata(consumer.position(partition), "", -1)
        producer.send_offsets_to_transaction({partition: read_up_to}, consumer.group_metadata())
        producer.commit_transaction()


def committed_offset(bootstrap: str, group: str, topic: str) -> int | None:
    with KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False) as consumer:
        offset: int | None = consumer.committed(TopicPartition(topic, 0))
    return offset


VALUES = [f"record {number}".encode() for number in range(100)]


def test_stop_and_start_keep_the_data(kafka_of_its_own: tuple[str, Callable[..., None]]) -> None:
    bootstrap, kafka_sh = kafka_of_its_own
    kafka_sh("start")
    kafka_sh("status")  # fails unless the broker answers: "start" has waited for that
    kafka_sh("start")  # a second one changes nothing
    source, sink = create_topic(bootstrap), create_topic(bootstrap)
    produce(bootstrap, source, VALUES)
    copy_in_transaction(bootstrap, source, sink, group=sink)

    kafka_sh("stop")
    host, port = bootstrap.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    kafka_sh("start")

    assert read_to_end(bootstrap, sink, "read_committed") == VALUES
    assert committed_offset(bootstrap, sink, source) == 100


def test_an_unknown_topic_is_refused_and_not_created(kafka_bootstrap: str) -> None:
    name = f"misspelt-{uuid.uuid4().hex}"
    with KafkaProducer(bootstrap_servers=kafka_bootstrap, max_block_ms=1_000) as producer, pytest.raises(KafkaError):
        producer.send(name, value=b"lost").get(timeout=60)
    with KafkaAdminClient(bootstrap_servers=kafka_bootstrap) as admin:
        assert name not in admin.list_topics()


@pytest.mark.slow
def test_three_nodes_keep_three_copies_of_everything(kafka_of_its_own: tuple[str, Callable[..., None]]) -> None:
    bootstrap, kafka_sh = kafka_of_its_own
    kafka_sh("start", "--nodes", "3")
    source, sink = create_topic(bootstrap), create_topic(bootstrap)
    produce(bootstrap, source, VALUES)
    copy_in_transaction(bootstrap, source, sink, group=sink)

    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        for topic in admin.describe_topics([sink, "__consumer_offsets", "__transaction_state"]):
            for partition in topic["partitions"]:
                assert sorted(partition["replica_nodes"]) == [1, 2, 3], topic["name"]
    host, port = bootstrap.split(":")
    for node in range(3):
        assert read_to_end(f"{host}:{int(port) + node}", sink, "read_committed") == VALUES
