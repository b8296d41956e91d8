"""Exactly once: joiners are killed at random points, come and go, the broker breaks down; the join is the batch's."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from streaming.kafka.settings import ClientName, KafkaSettings
from tests.faults.join.trial import Size, endure
from tests.kafka_sh import RunKafkaSh

SHORT = Size(decisions=10_000, kills=8, freezes=0, round=500)
LONG = Size(decisions=100_000, kills=50, freezes=2, round=1_000)
SESSION_MS = 6_000  # the least that a broker grants by default


TRIALS = [
    pytest.param("kafka-python", SHORT, id="kafka-python-short"),
    *(
        pytest.param(client, size, id=f"{client}-{name}", marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])
        for client, size, name in [
            ("kafka-python", LONG, "long"),
            ("librdkafka", SHORT, "short"),
            ("librdkafka", LONG, "long"),
        ]
    ),
]


def listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


@pytest.mark.kafka
@pytest.mark.parametrize(("client", "size"), TRIALS)
def test_the_join_on_kafka_is_that_of_the_batch(
    kafka_of_its_own: tuple[str, RunKafkaSh], tmp_path: Path, client: ClientName, size: Size
) -> None:
    address, kafka_sh = kafka_of_its_own

    def settings(instance: str) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=[address],
            client=client,
            instance_id=instance,
            session_timeout=SESSION_MS,
            heartbeat_interval=500,
            transaction_timeout=5_000,
        )

    def stop_and_start() -> None:
        kafka_sh("stop")
        kafka_sh("start")

    def kill_and_start() -> None:
        (pid,) = tmp_path.glob("cluster-of-1/node-1/pid")
        os.kill(int(pid.read_text()), signal.SIGKILL)
        while listens(address):  # it takes a moment to end, and its port is taken as long
            time.sleep(0.01)
        kafka_sh("start")

    breakdowns = {0.45: kill_and_start} if size is SHORT else {0.45: stop_and_start, 0.8: kill_and_start}
    kafka_sh("start")
    result = endure(tmp_path, settings, size, breakdowns)
    print(result)
    assert result.differences == []
    assert result.in_transaction >= 1  # or the trial has tried nothing
