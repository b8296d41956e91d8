"""What the pages for product engineers say can be run, run against a server with the starter's configuration."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.service import PATIENCE_S, ROOT, Service, leeway, running, settings

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    starter = directory / "starter.yaml"
    assert leeway("init", starter).returncode == 0
    (said,) = (yaml.safe_load(text) for text in blocks("http.md", "yaml"))
    http = {**said["serving"]["http"], "port": 0}
    points = yaml.safe_load(starter.read_text())["decision_points"]
    with running(directory, settings(points, http=http), "serve") as service:
        yield service


PROGRAMS = [(page, number) for page in ("client.md", "modes.md") for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), PROGRAMS)
def test_the_programs_run(service: Service, page: str, number: int) -> None:
    before = len(service.decisions())
    program = blocks(page, "python")[number]
    exec(compile(program.replace("127.0.0.1:8180", service.target), f"docs/{page}, {number}", "exec"), {})
    assert len(service.decisions()) == before + ("8180" in program)


def run(service: Service, command: str, directory: Path) -> Any:
    facts = service.facts("serve")
    assert facts is not None
    ended = subprocess.run(
        ["bash", "-c", command.replace("8190", str(facts["http_port"]))],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return json.loads(ended.stdout)


def test_the_commands_run(service: Service, tmp_path: Path) -> None:
    decide, report, wrong = (run(service, command, tmp_path) for command in blocks("http.md", "sh"))
    assert decide["decision_id"] == "d-1"
    assert report == {"outcome_id": "o-1"}
    (shown,) = blocks("http.md", "json")
    assert wrong == json.loads(shown)
