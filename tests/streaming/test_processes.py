from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from monitoring.exposition import serve_metrics
from monitoring.metrics import PipelineMetrics, ServingMetrics
from monitoring.role_metrics import RoleMetrics
from streaming.config import Config, load_config
from streaming.finding import Finding, Level
from streaming.processes import examine_processes
from streaming.up import announce, announce_joiner
from tests.integration.service import free_port


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "leeway.yaml"
    path.write_text("version: 1\ndecision_points: {offers: {}, banners: {}}\n")
    return load_config(path, {})


def findings(config: Config) -> dict[str, Finding]:
    return {found.subject: found for found in examine_processes(config)}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    server = serve_metrics(registry, "127.0.0.1", 0)
    yield server.port
    server.close()


def test_a_role_that_is_down_is_named_with_its_process(config: Config, registry: CollectorRegistry, port: int) -> None:
    PipelineMetrics(registry, ["offers"])  # among its samples is NaN
    roles = RoleMetrics(registry, ["join", "learner"])
    roles.up.labels("join").set(1)
    announce(config, "work", metrics_port=port)
    found = findings(config)
    assert found["work"].level is Level.OK
    assert "join role" not in found
    assert found["learner role"].level is Level.PROBLEM
    assert "messages of `work`" in found["learner role"].words
    roles.up.labels("learner").set(1)
    assert "learner role" not in findings(config)


def test_members_of_the_join_are_asked_too(config: Config, registry: CollectorRegistry, port: int) -> None:
    RoleMetrics(registry, ["join"])
    member = announce_joiner(config, metrics_port=port)
    found = findings(config)
    assert found["join"].words == f"1 members run here: {member}"
    assert found["join role"].level is Level.PROBLEM
    assert f"`{member}`" in found["join role"].words


def test_decisions_that_were_answered_unrecorded_are_counted(
    config: Config, registry: CollectorRegistry, port: int
) -> None:
    metrics = ServingMetrics(registry, ["offers", "banners"])
    announce(config, "serve", metrics_port=port)
    assert findings(config).keys() == {"serve", "work"}
    metrics.decisions_unrecorded.labels("offers").inc(12)
    found = findings(config)
    assert found["offers recording"].level is Level.WARNING
    assert found["offers recording"].words.startswith("12 decisions were answered unrecorded since `serve` started")
    assert "banners recording" not in found


def test_a_process_that_does_not_answer_is_a_warning(config: Config) -> None:
    announce(config, "work", metrics_port=free_port())
    found = findings(config)
    assert found["work"].level is Level.OK
    assert found["work metrics"].level is Level.WARNING
    assert "do not answer" in found["work metrics"].words
