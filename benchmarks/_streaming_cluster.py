"""A Kafka broker for one run of the benchmark, on a core of its own, and what is done there around a measurement."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kafka

from benchmarks._streaming_workload import Workload
from engine.records import Feedback
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.log import Message, partition_of
from streaming.topics import FEEDBACK, topics

KAFKA_SH = Path(__file__).parents[1] / "deploy" / "kafka" / "kafka.sh"
RETENTION_MS = 2**50  # events are dated in the past
BROKER_CORE = 0
MEASURED_CORE = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running broker.

    Parameters
    ----------
    bootstrap
        Its address.
    pid
        Its process.
    """

    bootstrap: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return how much of its core the broker has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def use_every_core(self) -> None:
        """Let the broker use every core that this process may use."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), os.sched_getaffinity(0))

    def log(self, prefix: str, partitions: int) -> KafkaLog:
        """Return a log with fresh topics whose names begin with ``prefix``."""
        log = KafkaLog(KafkaSettings(bootstrap_servers=[self.bootstrap], topic_prefix=prefix))
        log.create(topics(partitions, RETENTION_MS))
        return log

    def forget(self, prefix: str) -> None:
        """Delete all topics whose names contain ``prefix``, those too that a peer has made for itself."""
        admin = kafka.KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.delete_topics([name for name in admin.list_topics() if prefix in name])
        finally:
            admin.close()

    @contextmanager
    def held_back(self, prefix: str, messages: Sequence[Message], partitions: int) -> Iterator[Any]:
        """Write messages in a transaction that the caller commits: then all of them can be read at once.

        Yields the producer; ``commit_transaction`` is the starting shot.
        """
        producer = kafka.KafkaProducer(
            bootstrap_servers=self.bootstrap,
            transactional_id=f"{prefix}loader",
            transaction_timeout_ms=840_000,  # brokers allow 15 minutes
            linger_ms=100,
            batch_size=262_144,
            metrics_enabled=False,
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            for message in messages:
                producer.send(
                    prefix + message.topic,
                    message.value,
                    message.key,
                    list(message.headers),
                    partition_of(message.key, partitions),
                    message.timestamp_ms,
                )
            producer.flush()
            yield producer
        finally:
            producer.close()


@contextmanager
def started() -> Iterator[Cluster]:
    """Run a broker, and delete all of it at the end."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="leeway-benchmark-") as folder:
        environment = {**os.environ, "LEEWAY_KAFKA_DIR": folder, "LEEWAY_KAFKA_PORT": str(port)}

        def run(command: str) -> None:
            done = subprocess.run(
                [KAFKA_SH, command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise SystemExit(f"no Kafka broker can be had for the benchmark: {done.stdout}")

        cores = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {BROKER_CORE})  # what is started now inherits it
            try:
                run("start")
            finally:
                os.sched_setaffinity(0, cores)
            pid = next(Path(folder).glob("cluster-of-1/node-1/pid"))
            yield Cluster(f"127.0.0.1:{port}", int(pid.read_text()))
        finally:
            run("clean")


def load(log: KafkaLog, messages: Sequence[Message], slice_: int = 20_000) -> None:
    """Write messages so that they can be read at once."""
    for start in range(0, len(messages), slice_):
        log.append(messages[start : start + slice_])


def check_feedback(log: KafkaLog, workload: Workload) -> None:
    """Compare the topic of feedback with what must be in it: each decision once, with its reward."""
    expected = workload.rewards()
    found: Counter[str] = Counter()
    for value in _values(log):
        feedback = Feedback.FromString(value)
        name = feedback.decision.decision_id
        found[name] += 1
        if feedback.defaulted or feedback.reward != expected.get(name) or feedback.outcomes != 1:
            raise SystemExit(f"wrong feedback for decision {name}: reward {feedback.reward}, not {expected.get(name)}")
    if found.keys() != expected.keys() or found.total() != len(expected):
        raise SystemExit(f"{len(expected)} feedbacks expected; {found.total()} came, of {len(found)} decisions")


def check_count(log: KafkaLog, count: int) -> None:
    """Check how many records are in the topic of feedback."""
    found = sum(1 for _ in _values(log))
    if found != count:
        raise SystemExit(f"{count} records expected; {found} came")


def _values(log: KafkaLog) -> Iterator[bytes]:
    for partition in log.ends(FEEDBACK):
        start = 0
        while records := log.read(FEEDBACK, partition, start, 10_000):
            start = records[-1].offset + 1
            yield from (record.value or b"" for record in records)


def _free_port() -> int:
    """Return a port that is free together with the one of its controller, 20 above it (see kafka.sh)."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 20)):
                return port
        except OSError:
            continue
