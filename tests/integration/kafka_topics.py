"""Topics, processes and short ways of the tests of the Kafka log."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

from streaming.kafka.settings import KafkaSettings
from streaming.log import Consumer, Log, Message, Topic, TopicPartition

SOURCE, SINK, GROUP = "source", "sink", "copier"
TOPICS = [Topic(SOURCE, "source", 2), Topic(SINK, GROUP, 2)]
EVERYTHING = {TopicPartition(SOURCE, 0), TopicPartition(SOURCE, 1)}

Settings = Callable[..., KafkaSettings]


class Process:
    """A ``kafka_member`` process."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kafka_member", settings.model_dump_json(), GROUP, SOURCE, SINK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return line.strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def feed(log: Log, start: int, stop: int) -> list[int]:
    log.append([Message(SOURCE, b"key-%d" % number, b"%d" % number, number) for number in range(start, stop)])
    return list(range(start, stop))


def contents(log: Log, topic: str) -> list[int]:
    found = []
    for partition in log.ends(topic):
        offset = 0
        while batch := log.read(topic, partition, offset):
            found += [int(record.value or b"") for record in batch]
            offset = batch[-1].offset + 1
    return sorted(found)


def copy(log: Log, consumer: Consumer, count: int) -> None:
    """Copy ``count`` records from source to sink, each poll in a transaction."""
    copied = 0
    deadline = time.monotonic() + 60.0
    while copied < count:
        assert time.monotonic() < deadline, f"{copied} of {count} records after 60 s"
        records = consumer.poll(timeout_s=0.1)
        if records:
            with log.transaction(GROUP) as transaction:
                for record in records:
                    transaction.send(Message(SINK, record.key, record.value, record.timestamp_ms))
                transaction.commit_offsets(consumer.position())
            copied += len(records)
    assert consumer.poll() == []
