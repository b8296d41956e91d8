"""Drift of one feature in the running service: real processes, from the request to the released promotion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.client import LeewayClient, decide_request
from tests.integration.service import Service, eventually, leeway, running, settings

OFFERS: dict[str, Any] = {
    "context": {"basket": {"type": "number"}, "country": {"type": "text", "buckets": 8}},
    "reward": {"window": "1s", "grace": "200ms", "aggregation": "first"},
    "retraining": {"enabled": False},
    "monitors": {
        "warm_up": 300,
        "feedbacks_per_month": 10_000_000,
        "features": {"reactions": ["hold_promotion"]},
        "propensity": {"share": 0.5},
    },
}


def ask(client: LeewayClient, seed: int, count: int, basket: float) -> None:
    """Send decisions whose basket has this mean; a country is missing in every tenth."""
    rng = np.random.default_rng(seed)
    contexts: list[dict[str, float | str]] = [
        {"basket": basket + float(rng.normal()), **({"country": str(rng.choice(["NL", "DE"]))} if n % 10 else {})}
        for n in range(count)
    ]
    for at in range(0, count, 100):
        client.decide_batch([decide_request("offers", {**context}, ["a", "b"]) for context in contexts[at : at + 100]])


def alarms(service: Service) -> list[dict[str, Any]]:
    done = leeway("drift", "list", "--json", "--config", service.path)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["alarms"]
    return found


@pytest.mark.slow
def test_a_feature_that_changes_is_reported_and_holds_promotions_until_acknowledged(tmp_path: Path) -> None:
    with running(tmp_path, settings({"offers": OFFERS})) as service, service.client() as client:
        ask(client, 1, 1_000, 0.0)
        service.settled()
        assert alarms(service) == []
        ask(client, 2, 500, 2.0)
        (alarm, *more) = eventually(lambda: alarms(service), "an alarm")
        assert (alarm["monitor"], alarm["stream"], alarm["reactions"]) == ("features", "basket", ["hold_promotion"])
        assert {entry["stream"] for entry in more} <= {"basket"}
        service.settled()
        eventually(
            lambda: (
                service.metric("work", "leeway_propensity_audits_total", decision_point="offers", result="same") > 10
            ),
            "audits",
        )
        assert service.metric("work", "leeway_propensity_audits_total", result="different") == 0

        held = leeway("retrain", "--config", service.path)
        assert held.returncode == 6, held.stderr
        assert f"leeway drift ack {alarm['alarm_id']}" in held.stdout
        picture = tmp_path / "basket.png"
        told = leeway("drift", "explain", alarm["alarm_id"], "--png", picture, "--config", service.path)
        assert told.returncode == 0, told.stderr
        assert picture.stat().st_size > 10_000
        for entry in alarms(service):
            assert leeway("drift", "ack", entry["alarm_id"], "--config", service.path).returncode == 0
        assert leeway("retrain", "--config", service.path).returncode != 6
        assert service.stop() == 0
