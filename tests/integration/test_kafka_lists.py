"""Lists on a real Kafka: recommended, reported, joined slot by slot, archived and computed again."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import pytest

from engine.records import Feedback
from streaming.insight import tail
from streaming.opening import attach
from streaming.topics import FEEDBACK
from tests.integration.service import eventually, settings
from tests.integration.test_kafka_service import KafkaService

pytestmark = pytest.mark.kafka

LISTS = 40
SHOP = {
    "user": {"country": {"type": "category"}},
    "item": {"item_id": {"type": "category"}},
    "tasks": {"click": 1.0, "purchase": 3.0},
    "slots": 3,
    "candidates": 8,
    "reward": {"window": "1s", "grace": "200ms"},
    "retraining": {"enabled": False},
}


def test_lists_are_joined_and_computed_again(tmp_path: Path, kafka_bootstrap: str) -> None:
    configuration = {**settings(), "decision_points": {}, "recommenders": {"shop": SHOP}}
    prefix = {"LEEWAY_LOG__TOPIC_PREFIX": f"lists-{uuid.uuid4().hex[:8]}-"}
    service = KafkaService(tmp_path, kafka_bootstrap, [], prefix, configuration)
    items = tmp_path / "items.csv"
    items.write_text("item_id\n" + "".join(f"i{number}\n" for number in range(8)))
    loaded = service.command("catalogue", "load", str(items))
    assert loaded.returncode == 0, loaded.stderr
    service.start()
    try:
        with service.client(retry_s=30.0) as client:
            for number in range(LISTS):
                answer = client.recommend("shop", {"country": "NL"}, decision_id=f"v{number}")
                assert [item.propensity for item in answer.items] == [1 / 8, 1 / 7, 1 / 6]
                client.report(answer.decision_id, 1.0, point="shop", task="click", item=answer.items[1].id)
                client.report(answer.decision_id, 1.0, point="shop", task="purchase", slot=2)

        def feedback() -> dict[str, Feedback]:
            with closing(attach(service.config)) as log:
                found = [Feedback.FromString(value) for value in tail(log, FEEDBACK, 10 * LISTS)]
            assert len({each.decision.decision_id for each in found}) == len(found)
            return {each.decision.decision_id: each for each in found}

        eventually(lambda: len(feedback()) == LISTS, "the feedback of all lists")
        for each in feedback().values():
            assert (each.reward, each.outcomes, each.defaulted) == (4.0, 2, False)
            assert list(each.slot_values) == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
        eventually(
            lambda: service.metric("work", "leeway_archive_rows_total", decision_point="shop") == LISTS, "the archive"
        )
        replayed = service.command("replay")
        assert (replayed.returncode, replayed.stdout) == (0, f"{LISTS} decisions recomputed, 0 differ\n")
        assert service.stop() == 0
    finally:
        service.kill()
