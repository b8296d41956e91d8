from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from engine.errors import ConfigError, LogError
from engine.records import Decision
from monitoring.metrics import ServingMetrics
from streaming import serving_log
from streaming.config import Config, load_config
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.log import Topic
from streaming.serving_log import ClusterInsight, ServingLog, open_serving_log
from streaming.shipping import Shipping

EMBEDDED = "log: {fsync: false}"
CLUSTER = "log: {kind: kafka, bootstrap_servers: ['broker:9092']}"
HURRY = threading.Event()
HURRY.set()


def configured(directory: Path, log: str, durability: str) -> Config:
    path = directory / "leeway.yaml"
    path.write_text(
        f"version: 1\ndata_dir: data\ndecision_points: {{offers: {{}}}}\n{log}\nserving: {{durability: {durability}}}\n"
    )
    return load_config(path, {})


def opened(config: Config) -> tuple[ServingLog, CollectorRegistry]:
    registry = CollectorRegistry()
    return open_serving_log(config, ServingMetrics(registry, list(config.decision_points)), lambda: 5_000), registry


def decisions(start: int, end: int) -> list[Decision]:
    return [Decision(decision_id=f"d{n}", decision_point="offers", time_ms=n) for n in range(start, end)]


def recalled(log: ServingLog, count: int = 100) -> list[str]:
    values: list[bytes] = []
    log.recall(count, values.append)
    return sorted(Decision.FromString(value).decision_id for value in values)


def test_an_embedded_log_has_no_broker_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serving \(line 5\): durability broker needs a broker: choose disk"):
        configured(tmp_path, EMBEDDED, "broker")
    assert configured(tmp_path, CLUSTER, "broker").serving.broker_patience == 100


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_the_embedded_log_has_what_was_recorded_and_refuses_what_it_cannot_take(
    tmp_path: Path, durability: str
) -> None:
    config = configured(tmp_path, EMBEDDED, durability)
    log, _ = opened(config)
    log.recorder.record(decisions(0, 20)).result(10)
    log.close(HURRY)
    log, _ = opened(config)
    assert recalled(log) == sorted(f"d{n}" for n in range(20))
    assert not log.answers_unrecorded
    log.close(HURRY)


class TestClusterAway:
    """A cluster that cannot be reached; tests/faults meets a real one."""

    @pytest.fixture(autouse=True)
    def _away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Away:
            """What ``KafkaLog`` does without a broker, and without a socket left over for each attempt."""

            def __init__(self, settings: KafkaSettings) -> None:
                self.settings = settings

            def create(self, topics: Sequence[Topic]) -> None:
                raise LogError(f"Kafka at {self.settings.where}: cannot connect")

            def close(self) -> None:
                pass

        monkeypatch.setattr(serving_log, "KafkaLog", Away)
        monkeypatch.setattr(serving_log, "PATIENCE_S", 0.05)

    @pytest.mark.parametrize("durability", ["memory", "disk", "broker"])
    def test_records_wait_in_the_spool_over_restarts(
        self, tmp_path: Path, durability: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = configured(tmp_path, CLUSTER, durability)
        for start in (0, 20):
            log, registry = opened(config)
            assert log.answers_unrecorded
            log.recorder.record(decisions(start, start + 20)).result(10)
            log.recorder.close()  # what was answered for from memory is written at the end
            assert registry.get_sample_value("leeway_spool_records") == start + 20
            assert registry.get_sample_value("leeway_spool_oldest_age_seconds") == 5.0
            assert 0 < (registry.get_sample_value("leeway_spool_bytes") or 0) < 200_000
            log.close(HURRY)
        assert "40 records stay in the spool" in caplog.text
        log, _ = opened(config)
        assert recalled(log) == sorted(f"d{n}" for n in range(40))
        assert "a retry of one decides anew: " in caplog.text
        log.close(HURRY)

    def test_the_reason_is_told_why_decisions_of_the_cluster_are_not_known(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cluster may well be there, and have other topics."""
        monkeypatch.setattr(serving_log, "PATIENCE_S", 1.0)
        log, _ = opened(configured(tmp_path, CLUSTER, "disk"))
        recalled(log)
        assert "a retry of one decides anew: Kafka at broker:9092: cannot connect" in caplog.text
        log.close(HURRY)

    def test_a_cluster_that_has_not_answered_yet_is_told_as_that(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, ended = threading.Event(), threading.Event()

        def silent(*_: object) -> None:
            asked.set()
            ended.wait(30)

        monkeypatch.setattr(serving_log, "declare", silent)
        log, _ = opened(configured(tmp_path, CLUSTER, "disk"))
        assert asked.wait(30)
        recalled(log)
        ended.set()
        assert "a retry of one decides anew: it has not answered within 0.05 s" in caplog.text
        log.close(HURRY)

    def test_a_record_that_the_cluster_would_never_take_is_refused_at_once(self, tmp_path: Path) -> None:
        config = configured(tmp_path, CLUSTER.replace("{kind", "{max_message_bytes: 2000, kind"), "disk")
        log, registry = opened(config)
        large = Decision(decision_id="d", decision_point="offers", fallback_detail="x" * 3_000)
        with pytest.raises(LogError, match=r"larger than log\.max_message_bytes \(2000\)"):
            log.recorder.record([large]).result(10)
        assert registry.get_sample_value("leeway_spool_records") == 0
        log.close(HURRY)


class Trouble:
    """What ships, as far as it is asked whether the cluster is away."""

    trouble: str | None = "broker away"


def test_a_status_request_does_not_wait_for_a_cluster_that_is_known_to_be_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def accounting(log: object) -> dict[str, object]:
        asked.append(log)
        return {}

    monkeypatch.setattr("streaming.insight.read_accounting", accounting)
    shipping = Trouble()
    insight = ClusterInsight(cast(KafkaLog, None), cast(Shipping, shipping))
    with pytest.raises(LogError, match="broker away"):
        insight.accounting()
    assert asked == []
    shipping.trouble = None
    assert insight.accounting() == {}
    assert len(asked) == 1


def test_status_requests_ask_the_cluster_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_log, "_TURN_S", 0.01)
    shipping = Trouble()
    shipping.trouble = None
    insight = ClusterInsight(cast(KafkaLog, None), cast(Shipping, shipping))

    def accounting(log: object) -> dict[str, object]:
        with pytest.raises(LogError, match="another status request still waits"):
            insight.alarms("offers")
        return {}

    monkeypatch.setattr("streaming.insight.read_accounting", accounting)
    assert insight.accounting() == {}
