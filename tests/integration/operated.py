"""An installation that has been used, and its console: traffic, and generations by ``leeway retrain``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engine.api.leeway.v1 import service_pb2
from engine.client import Decided, LeewayClient, decide_request
from tests.integration.service import COMMAND, PATIENCE_S, ROOT, Service, eventually, leeway, running, settings

POINT = "offers"
#: What an action earns in a country: the best one differs, so that a trained policy beats one that knows nothing.
REWARDS = {"NL": {"none": 0.5, "small": 0.35, "large": 0.15}, "DE": {"none": 0.15, "small": 0.35, "large": 0.7}}
OFFERS: Mapping[str, Any] = {
    "context": {"basket": {"type": "number"}, "country": {"type": "text", "buckets": 8}},
    "reward": {"window": "1s", "grace": "200ms", "aggregation": "first"},
    # What acts changes by training alone: the first policy knows nothing, and the second is that of generation 1.
    "policy": {"publish_interval": "1h"},
    "retraining": {"on_drift": False, "min_events": 300, "oracles": ["configured"], "gate": {"min_events": 50}},
    "monitors": {
        "warm_up": 300,
        "settle": 300,
        "feedbacks_per_month": 10_000_000,
        "max_per_second": 1_000_000,
        "features": {"reactions": ["hold_promotion"]},
    },
}
DECISIONS = 800


def operated(**changes: Any) -> dict[str, Any]:
    """Return the configuration."""
    return settings({POINT: {**OFFERS, **changes}}, audit_log="audit.jsonl")


def send(client: LeewayClient, first: int, count: int, *, basket: float = 0.0) -> None:
    """Ask for decisions with baskets of this mean, and report what nine in ten earned; all chance is fixed."""
    rng = np.random.default_rng([3, first])
    for begin in range(first, first + count, 50):
        countries = [str(name) for name in rng.choice(["NL", "DE"], 50)]
        requests = [
            decide_request(
                POINT,
                {"basket": basket + float(rng.normal()), "country": country},
                list(REWARDS[country]),
                f"d{begin + place}",
            )
            for place, country in enumerate(countries)
        ]
        now_ms, outcomes = time.time_ns() // 1_000_000, []
        for country, decided in zip(countries, client.decide_batch(requests), strict=True):
            assert isinstance(decided, Decided)
            value, delay = float(rng.random() < REWARDS[country][decided.action]), int(rng.integers(50, 900))
            if rng.random() < 0.9:
                outcomes.append(
                    service_pb2.ReportRequest(
                        decision_point=POINT,
                        decision_id=decided.decision_id,
                        outcome_id=decided.decision_id,
                        value=value,
                        time_ms=now_ms + delay,
                    )
                )
        client.report_batch(outcomes)


def trained(service: Service, rows: int) -> dict[str, Any]:
    """Run ``leeway retrain`` on what came since the last time, once ``rows`` are archived; return its report."""
    eventually(
        lambda: service.metric("work", "leeway_archive_rows_total") >= rows, "the archive of all feedback", 300.0
    )
    done = leeway("retrain", "--json", "--since-last", "--config", service.path, patience_s=900.0)
    assert done.returncode in (0, 4), done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def acts(client: LeewayClient, version: str) -> bool:
    """Whether the server decides by a policy now."""
    decided = client.decide(POINT, {"basket": 0.0, "country": "NL"}, ["none", "small", "large"])
    return decided.policy_version == version


@contextlib.contextmanager
def used(directory: Path, **changes: Any) -> Iterator[Service]:
    """Run an installation with two generations for a block: the first was promoted, the second refused by the gate."""
    with running(directory, operated(**changes)) as service, service.client() as client:
        send(client, 0, DECISIONS)
        service.settled()
        first = trained(service, DECISIONS)
        assert first["outcome"] == "promoted", first["words"]
        eventually(lambda: acts(client, first["policy_version"]), "generation 1 to act", 300.0)
        send(client, DECISIONS, DECISIONS)
        service.settled()
        second = trained(service, 2 * DECISIONS)
        assert second["outcome"] == "refused", second["words"]
        yield service


@contextlib.contextmanager
def console(service: Service, path: Path) -> Iterator[str]:
    """Run ``leeway console`` with a configuration beside the service, and give its address."""
    said = path.with_suffix(".console.txt")
    with said.open("w") as sink:
        process = subprocess.Popen(
            [*COMMAND, "console", "--port", "0", "--config", str(path)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
        try:
            yield eventually(partial(_address, said), "the console to listen", 4 * PATIENCE_S)
        finally:
            process.terminate()
            process.wait()


def _address(said: Path) -> str:
    found = [line.removeprefix("console on ") for line in said.read_text().splitlines() if "console on " in line]
    return found[0] if found else ""


def guarded(service: Service, scopes: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Return a configuration of the same installation that asks for tokens, and those that ``leeway token`` made."""
    entries, secrets = [], {}
    for name, scope in scopes.items():
        made = leeway("token", "create", name, "--scope", scope, "--json")
        assert made.returncode == 0, made.stderr
        said = json.loads(made.stdout)
        entries.append(said["entry"])
        secrets[name] = said["token"]
    access = service.path.with_name("access.yaml")
    access.write_text(yaml.safe_dump({"tokens": entries}))
    config = yaml.safe_load(service.path.read_text())
    config["serving"]["access_file"] = access.name
    path = service.path.with_name("guarded.yaml")
    path.write_text(yaml.safe_dump(config))
    return path, secrets
