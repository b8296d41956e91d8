"""Prometheus and its promtool, from the Debian package `prometheus`: where they are, and a server that scrapes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
#: How long it may take to start, on a busy machine.
PATIENCE_S = 60.0


def binary(name: str) -> str:
    """Return the path of a program of the package; without it the test is skipped, or fails where CI requires it."""
    found = shutil.which(name)
    if found is None:
        words = f"{name} is not on the path (Debian package prometheus)"
        if os.environ.get("LEEWAY_REQUIRE_PROMTOOL") == "1":
            pytest.fail(f"LEEWAY_REQUIRE_PROMTOOL=1, and {words}")
        pytest.skip(f"{words}; LEEWAY_REQUIRE_PROMTOOL=1 fails instead")
    return found


class Server:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API; an answer that is no success fails the test."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{path} {parameters}: {error.read().decode()}")

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression now; a scalar counts as one."""
        data = self.ask("query", query=expr)
        return [{"value": data["result"]}] if data["resultType"] == "scalar" else data["result"]


@contextlib.contextmanager
def scraping(directory: Path, port: int, targets: Mapping[str, str], rules: Sequence[Path] = RULES) -> Iterator[Server]:
    """Run a Prometheus with the configuration of ``deploy/``, and its rules unless others are given, for a block.

    Each job scrapes one target, every second; a target of another name is a job of its own.
    """
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = list(map(str, rules))
    config["scrape_configs"] = [
        {"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in targets.items()
    ]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    server = Server(f"http://127.0.0.1:{port}")
    with (directory / "prometheus.txt").open("w") as messages:
        process = subprocess.Popen(
            [
                binary("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=messages,
            stderr=messages,
        )
        try:
            end = time.monotonic() + PATIENCE_S
            while not _ready(server.url):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"Prometheus did not start: {(directory / 'prometheus.txt').read_text()}")
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
