"""What the Kafka log says of bad input, wrong settings and brokers that refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import kafka
import pytest

from engine.errors import LogError
from streaming.kafka import KafkaLog
from streaming.kafka.settings import KafkaSettings
from streaming.log import Message, Topic
from streaming.topics import topics
from tests.integration.kafka_topics import GROUP, SINK, SOURCE, TOPICS, Settings, contents, copy, feed
from tests.kafka_sh import SASL, RunKafkaSh

# The first test of a run may have to fetch the broker's jars.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


@pytest.fixture
def log(kafka_settings: Settings) -> Iterator[KafkaLog]:
    with closing(KafkaLog(kafka_settings())) as log:
        log.create(TOPICS)
        yield log


def test_a_missing_topic_is_named_and_not_created(log: KafkaLog, kafka_settings: Settings) -> None:
    with pytest.raises(LogError, match=r"'test-.*\.misspelt' does not exist.*create it"):
        log.consumer(GROUP, [SOURCE, "misspelt"])
    with pytest.raises(LogError, match="misspelt"):
        log.append([Message("misspelt", b"k", b"v", 0)])
    with pytest.raises(LogError, match=r"misspelt.*does not exist"):
        log.ends("misspelt")


def test_an_oversized_message_is_named_and_nothing_of_its_batch_is_sent(
    log: KafkaLog, kafka_settings: Settings
) -> None:
    large = Message(SOURCE, b"k", bytes(9_000_000), 0)
    with pytest.raises(LogError, match=r"9000001 bytes.*'source'.*max_message_bytes \(8388608\)"):
        log.append([Message(SOURCE, b"k", b"1", 0), large])
    assert contents(log, SOURCE) == []
    log.append([Message(SOURCE, b"k", bytes(8_000_000), 0)])  # the largest that may be is not refused by the broker
    (record,) = log.read(SOURCE, 0) or log.read(SOURCE, 1)
    assert len(record.value or b"") == 8_000_000


def test_a_message_that_the_broker_finds_too_large_fails_alone(log: KafkaLog, kafka_settings: Settings) -> None:
    with closing(KafkaLog(kafka_settings(max_message_bytes=20_000_000))) as generous:
        large = Message(SOURCE, b"k", bytes(9_000_000), 0)
        with pytest.raises(LogError, match=r"max_message_bytes here and max.message.bytes of the topic"):
            generous.append([large])
        assert feed(generous, 0, 10) == contents(log, SOURCE)
        generous.create([Topic("own", GROUP, 1)])
        log.create([Topic("own", GROUP, 1)])  # takes on the smaller size again

        def write(size: int) -> None:
            with generous.transaction(GROUP) as transaction:
                transaction.send(Message("own", b"k", b"1", 0))
                transaction.send(Message("own", b"k", bytes(size), 0))

        with pytest.raises(LogError, match=r"max_message_bytes here and max.message.bytes of the topic"):
            write(9_000_000)
        assert generous.aborts(GROUP) == 1
        write(5)
        assert [len(record.value or b"") for record in log.read("own", 0)] == [1, 5]
        assert generous.aborts(GROUP) == 1
        generous.create(TOPICS)  # takes on the new size
        generous.append([large])


def test_any_time_is_taken(log: KafkaLog) -> None:
    for number, time_ms in enumerate((-5, 0, 2**42)):  # from 1969 to 2109
        log.append([Message(SOURCE, b"k", b"%d" % number, time_ms)])
    assert contents(log, SOURCE) == [0, 1, 2]


def test_retention_follows_the_declaration(log: KafkaLog, kafka_settings: Settings) -> None:
    for retention_ms in (None, 5_000_000, 7_000_000):
        log.create([Topic("kept", "source", 1, retention_ms)])
        with kafka.KafkaAdminClient(bootstrap_servers=kafka_settings().bootstrap_servers) as admin:
            name = kafka_settings().topic_prefix + "kept"
            resource = kafka.admin.ConfigResource("TOPIC", name, ["retention.ms"])
            found = admin.describe_configs([resource], config_filter="all")["topic"][name]["retention.ms"]["value"]
        assert found == str(-1 if retention_ms is None else retention_ms)


def test_where_a_topic_exists_otherwise_nothing_is_created_and_all_that_differ_are_named(
    kafka_settings: Settings,
) -> None:
    settings = kafka_settings()
    prefix = settings.topic_prefix
    with kafka.KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:

        def existing() -> set[str]:
            return {name for name in admin.list_topics() if name.startswith(prefix)}

        made = {
            prefix + "feedback": {"num_partitions": 3},
            prefix + "late": {"num_partitions": 4},
            prefix + "join_state": {"num_partitions": 2},
            prefix + "alarms": {"num_partitions": 1, "configs": {"cleanup.policy": "compact", "retention.ms": "77"}},
        }
        admin.create_topics(made, wait_for_metadata=True)
        with closing(KafkaLog(settings)) as log:
            with pytest.raises(LogError) as refused:
                log.create(topics(4, 5_000_000))
            said = str(refused.value)
            for words in (
                f"'{prefix}feedback' has partitions 3, not 4",
                f"'{prefix}join_state' has partitions 2, not 4, '{prefix}join_state' is not compacted",
                f"'{prefix}alarms' is compacted",
                "log.partitions",
                "log.topic_prefix",
            ):
                assert words in said
            assert "late" not in said
            assert existing() == made.keys()
            # As the message says: they are empty, so delete them, and start again.
            admin.delete_topics([name for name in made if not name.endswith("late")])
            deadline = time.monotonic() + 30.0
            while existing() != {prefix + "late"}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            log.create(topics(4, 5_000_000))
            assert existing() == {prefix + topic.name for topic in topics(4, 5_000_000)}


REFUSED = """
import sys, threading
from engine.errors import LogError
from streaming.kafka import KafkaLog
from streaming.kafka.settings import KafkaSettings
from streaming.log import Topic
try:
    KafkaLog(KafkaSettings.model_validate_json(sys.argv[1])).create([Topic("t", "w", 1)])
except LogError as error:
    print(error)
print(f"{threading.active_count()} thread")
"""
LOGIN = {"protocol": "sasl_plaintext", "mechanism": "PLAIN", "username": SASL[0], "password": SASL[1]}


def refused(settings: KafkaSettings, **changes: object) -> str:
    """Return what is said of settings that cannot connect."""
    # In a process of its own: kafka-python leaves sockets behind that were refused.
    security = changes.get("security")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, json.dumps(settings.model_dump(mode="json") | changes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, threads = done.stdout.splitlines()
    assert threads == "1 thread"  # nothing goes on trying
    if isinstance(security, Mapping) and "password" in security:
        assert str(security["password"]) not in done.stdout + done.stderr
    return said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bootstrap_servers": ["127.0.0.1:1"]}, r"127.0.0.1:1: cannot .*ECONNREFUSED.*check that the broker runs"),
        ({"security": LOGIN}, r"IllegalSaslState.*check protocol, mechanism, username and password"),
        ({"security": {"protocol": "ssl"}}, r"Handshake failed: .*bootstrap_servers and security are right"),
    ],
    ids=["no broker", "no such login", "no encryption"],
)
def test_who_cannot_connect_is_told_why(kafka_settings: Settings, changes: Mapping[str, object], message: str) -> None:
    assert re.search(message, refused(kafka_settings(request_timeout=1_500), **changes))


def test_a_login_is_needed_where_the_broker_wants_one_and_a_wrong_one_is_named(
    kafka_of_its_own: tuple[str, RunKafkaSh], kafka_settings: Settings
) -> None:
    bootstrap, kafka_sh = kafka_of_its_own
    kafka_sh("start")
    host, port = bootstrap.split(":")
    guarded = kafka_settings(bootstrap_servers=[f"{host}:{int(port) + 40}"], security=LOGIN, request_timeout=3_000)
    with closing(KafkaLog(guarded)) as log:
        log.create(TOPICS)
        sent = feed(log, 0, 10)
        copy(log, log.consumer(GROUP, [SOURCE]), 10)
        assert contents(log, SINK) == sent
    said = refused(guarded, security=LOGIN | {"password": "another"})
    assert re.search(r"SaslAuthenticationFailed.*check protocol, mechanism, username and password", said), said
