"""What holds for all tests, and a real Kafka broker for those that ask for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kafka_sh import RunKafkaSh, own_kafka

# Examples do not change from run to run, and a slow machine fails nothing.
settings.register_profile("leeway", derandomize=True, deadline=None)
settings.load_profile("leeway")


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker shared by all tests: use topics, groups and transactional ids of your own.

    It is ``LEEWAY_KAFKA_BOOTSTRAP`` where that is set; otherwise a broker is started, and deleted at the end. Where
    that is impossible the test is skipped, or fails if ``LEEWAY_REQUIRE_KAFKA=1``.
    """
    if given := os.environ.get("LEEWAY_KAFKA_BOOTSTRAP"):
        yield given
        return
    address, run = own_kafka(tmp_path_factory.mktemp("kafka"))
    run("start")
    try:
        yield address
    finally:
        run("clean")


@pytest.fixture
def kafka_of_its_own(tmp_path: Path) -> Iterator[tuple[str, RunKafkaSh]]:
    """Address of a broker that only this test uses, not yet started, and what runs ``kafka.sh`` commands on it."""
    address, run = own_kafka(tmp_path)
    try:
        yield address, run
    finally:
        run("clean")
