"""A process of its own on a Kafka log, told what to do by lines on its input; each line is answered by one.

``python -m tests.integration.kafka_member SETTINGS GROUP SOURCE SINK`` with the settings as JSON:

``copy POINT``
    Take all that can be read of the source, and copy it to the sink in one transaction. It stops at a point of the
    commit (``sent``, ``offsets``), answers ``stopped``, and goes on with the next line. Then: ``copied N`` or
    ``LogError ...``.
``copy``
    The same without a stop.
``spin``
    Append to the source and read from it until the next line, whatever the broker does, and say ``at N`` now and
    then. Then: what was acknowledged and what was read, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from engine.errors import LogError
from streaming.kafka import KafkaLog
from streaming.kafka.client import Producer
from streaming.kafka.settings import KafkaSettings
from streaming.log import Message, Record, Topic


def tell(text: str) -> None:
    print(text, flush=True)


def stop_at(point: str) -> None:
    """Let the next transaction of this process stop once, where its commit has come so far."""
    following = {"sent": "send_offsets_to_transaction", "offsets": "commit_transaction"}[point]
    original = getattr(Producer, following)

    def stopping(self: Producer, *arguments: object) -> None:
        setattr(Producer, following, original)
        tell("stopped")
        sys.stdin.readline()
        original(self, *arguments)

    setattr(Producer, following, stopping)


class Member:
    def __init__(self, settings: KafkaSettings, group: str, source: str, sink: str) -> None:
        self.log = KafkaLog(settings)
        self.group, self.source, self.sink = group, source, sink
        self.log.create([Topic(source, "source", 2), Topic(sink, group, 2)])
        self.consumer = self.log.consumer(group, [source])

    def copy(self, point: str = "") -> str:
        records: list[Record] = []
        while (more := self.consumer.poll(timeout_s=0.1)) or not self.consumer.assignment():
            records = records + more if self.consumer.assignment() else []
        if point:
            stop_at(point)
        try:
            with self.log.transaction(self.group) as transaction:
                for record in records:
                    transaction.send(Message(self.sink, record.key, record.value, record.timestamp_ms))
                transaction.commit_offsets(self.consumer.position())
        except LogError as error:
            return f"LogError {error}".replace("\n", " ")
        return f"copied {len(records)}"

    def spin(self) -> str:
        told = threading.Event()

        def listen() -> None:
            sys.stdin.readline()
            told.set()

        threading.Thread(target=listen, daemon=True).start()
        acknowledged: list[int] = []
        read: list[int] = []
        failures = {"append": 0, "poll": 0}
        number = 0
        while not told.is_set() or len(read) < len(acknowledged):
            if not told.is_set():
                number += 1
                try:
                    self.log.append([Message(self.source, b"%d" % (number % 5), b"%d" % number, number)])
                    acknowledged.append(number)
                    if len(acknowledged) % 20 == 0:
                        tell(f"at {number}")
                except LogError:
                    failures["append"] += 1
            try:
                read += (int(record.value or b"") for record in self.consumer.poll(timeout_s=0.01))
            except LogError:
                failures["poll"] += 1
            time.sleep(0.01)
        return json.dumps({"acknowledged": acknowledged, "read": read, "failures": failures})


def main() -> None:
    settings, group, source, sink = sys.argv[1:]
    member = Member(KafkaSettings.model_validate_json(settings), group, source, sink)
    for line in sys.stdin:
        command, *arguments = line.split()
        tell(member.copy(*arguments) if command == "copy" else member.spin())
    member.log.close()


if __name__ == "__main__":
    main()
