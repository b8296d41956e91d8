from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from engine.errors import LogError
from engine.records import Decision
from monitoring.metrics import ServingMetrics
from streaming import serving_log
from streaming.config import Config, load_config
from streaming.doctor import examine
from streaming.finding import Level
from streaming.insight import tail
from streaming.kafka import KafkaSettings
from streaming.log import Message, Topic
from streaming.opening import open_log
from streaming.process_spools import left_spools, spool_path, spools
from streaming.serving_log import ServingLog, open_serving_log
from streaming.spool import Spool
from streaming.topics import DECISIONS

EMBEDDED = "{fsync: false}"
CLUSTER = "{kind: kafka, bootstrap_servers: ['127.0.0.1:1']}"


def configured(directory: Path, processes: int, log: str = EMBEDDED) -> Config:
    path = directory / "leeway.yaml"
    path.write_text(
        f"version: 1\ndata_dir: data\ndecision_points: {{offers: {{}}}}\nlog: {log}\n"
        f"serving: {{processes: {processes}}}\n"
    )
    return load_config(path, {})


def opened(config: Config, number: int) -> ServingLog:
    metrics = ServingMetrics(CollectorRegistry(), list(config.decision_points))
    return open_serving_log(config, metrics, lambda: 5_000, number)


def fill(path: Path, *values: bytes) -> None:
    spool = Spool(path, max_bytes=2**30, fsync=False)
    spool.append([Message(DECISIONS, value, value, 1) for value in values])
    spool.close()


def logged(config: Config) -> list[bytes]:
    log = open_log(config)
    try:
        return sorted(tail(log, DECISIONS, 100))
    finally:
        log.close()


def wait_for_no(config: Config) -> None:
    end = time.monotonic() + 60.0
    while left_spools(config):
        assert time.monotonic() < end, left_spools(config)
        time.sleep(0.01)


@pytest.mark.parametrize("log", [EMBEDDED, CLUSTER])
def test_each_process_has_a_spool_of_a_name_that_does_not_change(tmp_path: Path, log: str) -> None:
    three, five = configured(tmp_path, 3, log), configured(tmp_path, 5, log)
    paths = [spool_path(three, number) for number in (1, 2, 3)]
    assert len(set(paths)) == 3
    assert paths == [spool_path(five, number) for number in (1, 2, 3)]


def test_the_first_process_has_the_spool_that_one_alone_has_on_kafka(tmp_path: Path) -> None:
    config = configured(tmp_path, 2, CLUSTER)
    assert spool_path(config, 1) == config.spool_dir


@pytest.mark.parametrize(
    ("log", "processes", "left"),
    [(EMBEDDED, 3, []), (EMBEDDED, 2, [3]), (EMBEDDED, 1, [1, 2, 3]), (CLUSTER, 1, [2, 3])],
)
def test_what_nobody_uses_any_more_is_known(tmp_path: Path, log: str, processes: int, left: list[int]) -> None:
    config = configured(tmp_path, processes, log)
    for number in (1, 2, 3):
        fill(spool_path(config, number))
    spool_path(config, 2).with_name(spool_path(config, 2).name + ".damaged-1").mkdir()
    assert list(spools(config)) == [1, 2, 3]
    assert left_spools(config) == [spool_path(config, number) for number in left]


@pytest.mark.parametrize("processes", [2, 1])
def test_what_a_process_left_that_is_no_more_goes_to_the_log(tmp_path: Path, processes: int) -> None:
    config = configured(tmp_path, processes)
    fill(spool_path(config, 3), b"a", b"b")
    fill(spool_path(config, 4))
    log = opened(config, 1)
    wait_for_no(config)
    log.close(threading.Event())
    assert logged(config) == [b"a", b"b"]
    assert not spool_path(config, 3).exists()


def test_it_stays_while_the_cluster_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        """What ``KafkaLog`` does without a broker, and without a socket left over for each attempt."""

        def __init__(self, settings: KafkaSettings) -> None:
            self.settings = settings

        def create(self, topics: Sequence[Topic]) -> None:
            raise LogError(f"Kafka at {self.settings.where}: cannot connect")

        def close(self) -> None:
            pass

    monkeypatch.setattr(serving_log, "KafkaLog", Away)
    config = configured(tmp_path, 1, CLUSTER)
    fill(spool_path(config, 2), b"a")
    log = opened(config, 1)
    hurry = threading.Event()
    hurry.set()
    log.close(hurry)
    spool = Spool(spool_path(config, 2), max_bytes=2**30)
    assert spool.waiting == 1
    spool.close()


def test_processes_of_one_log_know_what_the_others_have_decided_before_they_started(tmp_path: Path) -> None:
    config = configured(tmp_path, 2)
    first = opened(config, 1)
    first.recorder.record([Decision(decision_id="d", decision_point="offers", time_ms=1)]).result(30)
    first.close(threading.Event())
    second = opened(config, 2)
    values: list[bytes] = []
    second.recall(10, values.append)
    assert not second.answers_unrecorded
    second.close(threading.Event())
    assert [Decision.FromString(value).decision_id for value in values] == ["d"]


def test_the_doctor_says_what_waits_for_the_log_that_processes_share(tmp_path: Path) -> None:
    config = configured(tmp_path, 2)
    open_log(config).close()
    fill(spool_path(config, 2), b"a", b"b", b"c")
    (found,) = [finding for finding in examine(config, 10_000) if finding.subject == "serving-2"]
    assert found.level is Level.WARNING
    assert found.words.startswith("3 records wait for the log, the oldest for 10 s")
    assert "leeway up" in found.words
