"""The broker is away when everything starts, comes, goes and comes again; and a signal ends everything meanwhile."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from streaming.kafka import KafkaLog, KafkaSettings
from streaming.log import Message
from streaming.topics import DECISIONS, JOIN, topics
from tests.faults.test_broker_down import kill_broker, on_kafka
from tests.integration.service import ACTIONS, COMMAND, CONTEXT, ROOT, Service, eventually, running, settings
from tests.kafka_sh import RunKafkaSh, free_port

pytestmark = pytest.mark.kafka

EACH = 20
ROUNDS = 3
#: How long a process may take to end, though it would wait for the broker for longer; with room for a busy machine.
END_S = 20.0


def decide(service: Service, name: str) -> None:
    """Make decisions that each get a reward; none may fail, whether there is a broker or not."""
    with service.client() as client:
        for number in range(EACH):
            client.decide("offers", CONTEXT, ACTIONS, f"{name}-{number}")
            client.report(f"{name}-{number}", 1.0, point="offers")


@pytest.mark.slow
def test_all_is_joined_and_learned_each_time_the_broker_comes_back(
    tmp_path: Path, kafka_of_its_own: tuple[str, RunKafkaSh]
) -> None:
    address, kafka = kafka_of_its_own
    with running(tmp_path, on_kafka(address)) as service:
        for turn in range(1, ROUNDS + 1):
            decide(service, f"away-{turn}")
            kafka("start")
            decide(service, f"back-{turn}")
            wanted = 2 * EACH * turn
            eventually(
                lambda wanted=wanted: service.metric("work", "leeway_learner_feedback_total") == wanted,  # type: ignore[misc]
                f"{wanted} feedbacks to be learned in round {turn}",
            )
            book = service.status().accounting
            assert (book.decisions, book.feedback, book.defaulted, book.pending) == (wanted, wanted, 0, 0), book
            kill_broker(tmp_path)
        assert service.stop() == 0


class Process:
    """One command of ``leeway`` by itself, beside others on one configuration."""

    def __init__(self, service: Service, name: str, *options: str) -> None:
        self.name = name
        self._messages = service.path.with_name(f"{name}.log")
        with self._messages.open("wb") as sink:
            self.process = subprocess.Popen(
                [*COMMAND, name, *options, "--config", str(service.path)], cwd=ROOT, stdout=sink, stderr=sink
            )

    def messages(self) -> str:
        """Return what it has said."""
        return self._messages.read_text()


def end(processes: Sequence[Process]) -> list[int]:
    """Return the statuses with which they end after a signal; fail if that takes long."""
    for each in processes:
        each.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + END_S
    statuses = []
    for each in processes:
        try:
            statuses.append(each.process.wait(max(deadline - time.monotonic(), 0.0)))
        except subprocess.TimeoutExpired:
            pytest.fail(f"{each.name} goes on {END_S:g} s after SIGTERM: {each.messages()}")
    return statuses


@contextmanager
def apart(directory: Path, address: str) -> Iterator[list[Process]]:
    """Run serve, work and join each by itself, with the timeouts that a cluster has by default."""
    service = Service(directory, {**settings(), "log": {"kind": "kafka", "bootstrap_servers": [address]}})
    processes: list[Process] = []
    try:
        processes += [Process(service, *words) for words in (("serve",), ("work", "--without-join"), ("join",))]
        for process in processes:
            eventually(lambda p=process: "metrics on" in p.messages(), f"{process.name} to start")  # type: ignore[misc]
        yield processes
    finally:
        service.kill()
        for process in processes:
            process.process.wait()


@pytest.mark.slow
def test_a_signal_ends_who_has_never_met_the_broker(tmp_path: Path) -> None:
    with apart(tmp_path, f"127.0.0.1:{free_port()}") as processes:
        assert end(processes) == [0, 0, 0]


@pytest.mark.slow
def test_a_signal_ends_who_waits_for_the_broker(tmp_path: Path, kafka_of_its_own: tuple[str, RunKafkaSh]) -> None:
    address, kafka = kafka_of_its_own
    kafka("start")
    with apart(tmp_path, address) as processes:
        log = KafkaLog(KafkaSettings(bootstrap_servers=[address]))
        try:
            log.create(topics(4, 2_592_000_000))
            log.append([Message(DECISIONS, b"key", b"no decision: a dead letter", 0)])
            eventually(lambda: log.committed(JOIN), "the join to begin")
        finally:
            log.close()
        kill_broker(tmp_path)
        time.sleep(2.0)
        assert end(processes) == [0, 0, 0]
