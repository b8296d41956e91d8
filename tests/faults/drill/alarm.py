"""What the drills share: rules with times that a test can wait for, and a Prometheus that holds them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.integration.service import eventually, free_port
from tests.prometheus import RULES, Server, scraping

Test = TypeVar("Test", bound=Callable[..., None])

#: What is shorter than in the rules of ``deploy/prometheus``, and nothing else is changed: every window of a rate ...
WINDOW_S = 20
#: ... every ``for`` that is longer, and how often rules are looked at ...
FOR_S, EVERY_S = 2, 1
#: ... and the bounds of those alerts that are themselves times.
BOUNDS = {
    "LeewayLag": ("> 300", "> 10"),
    "LeewayWatermarkBehind": ("> 300", "> 10"),
    "LeewayScheduledJobOverdue": ("> 2 * 86400", "> 20"),
}
#: How long an alert may take to fire or to end, on a busy machine.
PATIENCE_S = 400.0

#: The test of each alert; see `drills`.
DRILLED: dict[str, str] = {}


def drills(*alerts: str) -> Callable[[Test], Test]:
    """Mark a test as the drill of alerts: it sees each of them fire, and end."""

    def marked(test: Test) -> Test:
        for alert in alerts:
            DRILLED[alert] = test.__name__
        return test

    return marked


def alerts() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each rule that is an alert, and its group."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    yield rule, group


def shortened(directory: Path) -> list[Path]:
    """Write the rules with short times, and return where."""
    found, changed = [], set()
    for path in RULES:
        text = yaml.safe_load(path.read_text())
        for group in text["groups"]:
            group["interval"] = f"{EVERY_S}s"
            for rule in group["rules"]:
                rule["expr"] = re.sub(r"\[\d+[smhd]\]", f"[{WINDOW_S}s]", rule["expr"])
                name = rule.get("alert", "")
                if rule.get("for", "0m") != "0m":
                    rule["for"] = f"{FOR_S}s"
                if name in BOUNDS:
                    was, now = BOUNDS[name]
                    assert rule["expr"].count(was) == 1, f"{name}: its bound is no longer {was!r}"
                    rule["expr"] = rule["expr"].replace(was, now)
                    changed.add(name)
        found.append(directory / path.name)
        found[-1].write_text(yaml.safe_dump(text, sort_keys=False))
    assert changed == set(BOUNDS)
    return found


class Watch:
    """A Prometheus with the shortened rules."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Return the alerts that fire now, and the labels of each."""
        found: dict[str, list[dict[str, str]]] = {}
        for alert in self.server.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def fires(self, *names: str) -> None:
        """Wait until alerts fire, all at the same time or one after the other."""
        for name in names:
            eventually(lambda name=name: name in self.firing(), f"{name} to fire", PATIENCE_S)  # type: ignore[misc]

    def ends(self, *names: str) -> None:
        """Wait until alerts have ended."""
        for name in names:
            eventually(lambda name=name: name not in self.firing(), f"{name} to end", PATIENCE_S)  # type: ignore[misc]

    def quiet(self, *names: str) -> None:
        """Fail if alerts fire that have not been provoked yet."""
        assert not self.firing().keys() & set(names), self.firing()


@contextlib.contextmanager
def watching(directory: Path, targets: Mapping[str, str]) -> Iterator[Watch]:
    """Watch targets by job name for a block."""
    place = directory / "prometheus"
    place.mkdir()
    with scraping(place, free_port(), targets, shortened(place)) as server:
        yield Watch(server)


def metrics_ports() -> dict[str, int]:
    """Return the section ``metrics`` of a configuration, on ports that stay the same when the service starts again."""
    return {"serving_port": free_port(), "pipeline_port": free_port()}


def targets_of(metrics: Mapping[str, int]) -> dict[str, str]:
    """Return what Prometheus scrapes of such a service."""
    jobs = {"leeway-serve": "serving_port", "leeway-work": "pipeline_port"}
    return {job: f"127.0.0.1:{metrics[port]}" for job, port in jobs.items()}
