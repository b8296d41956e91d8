"""What the tests of the Kafka log share."""

from __future__ import annotations

import secrets

import pytest

from streaming.kafka.settings import KafkaSettings
from tests.integration.kafka_topics import Settings


@pytest.fixture
def kafka_settings(kafka_bootstrap: str) -> Settings:
    """Settings of one log that no other test uses; short times, and whatever else is asked for."""
    prefix = f"test-{secrets.token_hex(4)}."

    def build(**changes: object) -> KafkaSettings:
        return KafkaSettings.model_validate(
            {
                "bootstrap_servers": [kafka_bootstrap],
                "topic_prefix": prefix,
                "heartbeat_interval": 100,
                "session_timeout": 6_000,
                "transaction_timeout": 5_000,
                **changes,
            }
        )

    return build
