"""The broker is away: decisions go on within their deadline, and all of them arrive when it is back, in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.records import Decision, Outcome
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.log import partition_of
from streaming.topics import DECISIONS, OUTCOMES, topics
from tests.integration.service import ACTIONS, CONTEXT, Service, eventually, offer, running, settings
from tests.kafka_sh import RunKafkaSh

pytestmark = pytest.mark.kafka

#: What a caller allows: the default of the client library.
DEADLINE_S = 2.0
#: Decisions that outcomes are reported for again and again: their order is what must be kept.
KEYS = 20
CALLERS = 4


def on_kafka(address: str, *, log: Mapping[str, Any] | None = None, **serving: Any) -> dict[str, Any]:
    kafka = {"kind": "kafka", "bootstrap_servers": [address], "request_timeout": "3s", "delivery_timeout": "5s"}
    return {**settings(**serving), "log": {**kafka, **(log or {})}}


def kill_broker(folder: Path) -> None:
    """End the broker with -9, as a failing machine would."""
    pid = int((folder / "cluster-of-1" / "node-1" / "pid").read_text())
    os.kill(pid, signal.SIGKILL)


class Load:
    """Callers that decide at a steady rate, and report numbered outcomes for a few of their decisions.

    A call is made when it is due, however long others take.
    """

    def __init__(self, target: str, rate: float) -> None:
        self._target = target
        self._rate = rate
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._next = 0
        self.phase = "up"
        self.failures: Counter[str] = Counter()
        self.latencies_s: dict[str, list[float]] = defaultdict(list)
        self.decided: dict[str, float] = {}
        self.reported: dict[str, list[float]] = defaultdict(list)
        self.unrecorded = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(self._call, caller) for caller in range(CALLERS)]
            try:
                yield
            finally:
                self._stop.set()
            for caller in callers:
                caller.result()

    def _call(self, caller: int) -> None:
        keys = [f"key-{caller}-{number}" for number in range(KEYS // CALLERS)]
        with grpc.insecure_channel(self._target) as channel:
            stub = service_pb2_grpc.LeewayStub(channel)
            for key in keys:
                self._decide(stub, key)
            begun, turn = time.monotonic(), 0
            while not self._stop.wait(max(begun + turn * CALLERS / self._rate - time.monotonic(), 0.0)):
                turn += 1
                self._decide(stub, f"{caller}-{turn}")
                if turn % 5 == 0:
                    self._report(stub, keys[turn // 5 % len(keys)], turn)

    def _decide(self, stub: service_pb2_grpc.LeewayStub, decision_id: str) -> None:
        request = offer(decision_id=decision_id)
        phase, started = self.phase, time.perf_counter()
        try:
            answer = stub.Decide(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            self.failures[f"Decide {phase}: {error.code()} {error.details()}"] += 1
            return
        self.latencies_s[phase].append(time.perf_counter() - started)
        self.decided[decision_id] = answer.propensity
        self.unrecorded += answer.unrecorded

    def _report(self, stub: service_pb2_grpc.LeewayStub, key: str, turn: int) -> None:
        request = service_pb2.ReportRequest(decision_id=key, outcome_id=f"{key}-{turn}", value=1 / turn)
        try:
            stub.Report(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            self.failures[f"Report {self.phase}: {error.code()} {error.details()}"] += 1
            return
        self.reported[key].append(request.value)

    def report(self) -> str:
        """Return the latencies of each phase, for people."""
        lines = []
        for phase, values in self.latencies_s.items():
            p50, p99, most = (1_000 * np.quantile(values, q) for q in (0.5, 0.99, 1.0))
            lines.append(f"{phase}: {len(values)} decisions, ms p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f}")
        return "\n".join(lines)


def in_cluster(address: str) -> tuple[list[Decision], list[Outcome]]:
    """Return what the cluster has, each partition in its order."""
    log = KafkaLog(KafkaSettings(bootstrap_servers=[address]))
    try:
        read: dict[str, list[bytes]] = {DECISIONS: [], OUTCOMES: []}
        for topic, values in read.items():
            for partition, end in log.ends(topic).items():
                start = 0
                while start < end:
                    records = log.read(topic, partition, start, 5_000)
                    values += [record.value for record in records if record.value is not None]
                    start = records[-1].offset + 1
        return list(map(Decision.FromString, read[DECISIONS])), list(map(Outcome.FromString, read[OUTCOMES]))
    finally:
        log.close()


def spooled(service: Service) -> float:
    return service.metric("serve", "leeway_spool_records")


def check_all_arrived(address: str, load: Load) -> int:
    """Hold the cluster to what callers were told; return how many records are there twice."""
    decisions, outcomes = in_cluster(address)
    arrived = {decision.decision_id: decision for decision in decisions}
    assert arrived.keys() == load.decided.keys()
    for decision in decisions:
        assert decision == arrived[decision.decision_id]
        assert decision.probabilities[decision.chosen] == load.decided[decision.decision_id]
    orders: dict[str, dict[str, float]] = defaultdict(dict)
    for outcome in outcomes:
        orders[outcome.decision_id].setdefault(outcome.outcome_id, outcome.value)  # the first one counts
    assert {key: list(order.values()) for key, order in orders.items()} == load.reported
    return len(decisions) - len(arrived) + len(outcomes) - sum(map(len, load.reported.values()))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("durability", "rate", "down_s"),
    [
        ("disk", 100.0, 5.0),
        pytest.param("memory", 100.0, 5.0, marks=SLOW),
        pytest.param("disk", 500.0, 60.0, marks=SLOW),
        pytest.param("broker", 500.0, 60.0, marks=SLOW),
    ],
)
def test_no_decision_fails_or_is_lost_while_the_broker_is_down(
    tmp_path: Path, kafka_of_its_own: tuple[str, RunKafkaSh], durability: str, rate: float, down_s: float
) -> None:
    address, kafka = kafka_of_its_own
    kafka("start")
    with running(tmp_path, on_kafka(address, durability=durability), "serve") as service:
        load = Load(service.target, rate)
        with load.running():
            eventually(lambda: service.metric("serve", "leeway_shipped_records_total") > 2 * rate, "records to arrive")
            kill_broker(tmp_path)
            load.phase = "down"
            time.sleep(down_s)
            assert spooled(service) >= rate * down_s / 2
            load.phase = "coming back"
            kafka("start")
            eventually(lambda: spooled(service) < rate, "the spool to be shipped")
            load.phase = "back"
            time.sleep(down_s / 2)
        print(load.report())
        assert load.failures == {}
        assert load.unrecorded == 0
        eventually(lambda: spooled(service) == 0, "the spool to be shipped to its end")
        assert service.stop() == 0
    twice = check_all_arrived(address, load)
    print(f"{len(load.decided)} decisions, {twice} records arrived twice")


@pytest.mark.slow
def test_a_start_without_a_broker_and_topics_that_do_not_fit(
    tmp_path: Path, kafka_of_its_own: tuple[str, RunKafkaSh]
) -> None:
    address, kafka = kafka_of_its_own
    with running(tmp_path, on_kafka(address), "serve") as service:
        with service.client() as client:
            first = {f"first-{n}": client.decide("offers", CONTEXT, ACTIONS, f"first-{n}") for n in range(50)}
        eventually(lambda: service.metric("serve", "leeway_shipping_errors_total"), "the broker to be missed")
        assert service.metric("serve", "leeway_spool_oldest_age_seconds") > 0.0
        assert service.stop() == 0
        assert "50 records stay in the spool; they are shipped after the next start" in service.messages()

    kafka("start")
    cluster = KafkaLog(KafkaSettings(bootstrap_servers=[address]))
    try:
        cluster.create(topics(3, 3_600_000))
        with running(tmp_path, on_kafka(address), "serve") as service:
            eventually(lambda: "has partitions 3, not 4" in service.messages(), "the difference to be told")
            with service.client() as client:
                # Known by their ids from the spool: a retry gets the answer that will be in the log.
                again = {key: client.decide("offers", CONTEXT, ACTIONS, key) for key in first}
                client.decide("offers", CONTEXT, ACTIONS, "second")
            assert again == first
            assert spooled(service) == 51
            assert service.stop() == 0
        assert sum(cluster.ends(DECISIONS).values()) == 0

        with running(tmp_path, on_kafka(address, log={"partitions": 3}), "serve") as service:
            eventually(lambda: spooled(service) == 0, "the spool to be shipped")
            with service.client() as client:
                client.report("second", 1.0)
            eventually(lambda: cluster.ends(OUTCOMES).get(partition_of(b"second", 3)) == 1, "the outcome to arrive")
            assert service.stop() == 0
    finally:
        cluster.close()
    decisions, outcomes = in_cluster(address)
    assert {decision.decision_id for decision in decisions} == {*first, "second"}
    assert [outcome.decision_id for outcome in outcomes] == ["second"]

    # A start with the cluster at hand, and nothing in the spool: the answers of before are known from the cluster.
    with running(tmp_path, on_kafka(address, log={"partitions": 3}), "serve") as service, service.client() as client:
        assert {key: client.decide("offers", CONTEXT, ACTIONS, key) for key in first} == first
