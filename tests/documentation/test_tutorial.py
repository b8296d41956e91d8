"""The tutorial is followed as it stands, and what other pages say to a running service is said to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.documentation.blocks import ROOT, Block, live
from tests.documentation.reviewed import SERVED
from tests.integration.service import Service, eventually

pytestmark = pytest.mark.slow
BLOCKS = [block for block in live("sh", "python") if block.page == "docs/tutorial.md"]
#: Begins a service that stays, and makes the environment that the tests run in.
STAYS, SETUP = "leeway up", "make setup"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mine")


def lines_of(block: Block, service: Service) -> list[Block]:
    """Return each command of a block by itself, for the port that the service has."""
    found = block.commands()
    return [Block(block.page, "sh", line.replace("status", f"status --target {service.target}")) for line in found]


def say(block: Block, place: Path, target: str = "") -> subprocess.CompletedProcess[str]:
    """Run a block as a person would, where that person is."""
    text = block.text.replace("127.0.0.1:8180", target or "127.0.0.1:8180")
    command = [sys.executable, "-"] if block.language == "python" else ["bash", "-e"]
    here = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, input=text, cwd=place, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.fixture(scope="module")
def trained(place: Path) -> dict[str, str]:
    """Follow it up to where the service starts; what each block said, by its first line."""
    said: dict[str, str] = {}
    for block in BLOCKS:
        if block.key[1] == STAYS:
            return said
        if block.key[1] != SETUP:
            done = say(block, place)
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr[-3_000:]}"
            said[block.key[1]] = done.stdout + done.stderr
    raise AssertionError("the tutorial starts no service")


@pytest.fixture(scope="module")
def service(place: Path, trained: dict[str, str]) -> Iterator[Service]:
    """What `leeway up` starts, on free ports."""
    settings = yaml.safe_load((place / "leeway.yaml").read_text())
    ports = {"serving_port": 0, "pipeline_port": 0}
    service = Service(place, {**settings, "serving": {"port": 0, "drain": "100ms"}, "metrics": ports})
    try:
        service.start()
        # Who types the next command has taken longer than the learner, which publishes what was promoted.
        eventually(lambda: service.status("mail").policy_version.startswith("g1.0-"), "the trained policy")
        yield service
    finally:
        service.kill()


@pytest.mark.timeout(1_800)
def test_the_campaign_is_read_simulated_and_proved(trained: dict[str, str]) -> None:
    said = "\n".join(trained.values())
    assert "4000 feedbacks imported into mail, 0 were there already, 0 put aside" in said
    assert "estimated mean reward of 4000 decisions: 0.2" in said
    assert re.search(r"g1\.0-\w+ promoted: better than the champion by \+0\.\d+ .*compared with what was logged", said)


@pytest.mark.timeout(1_800)
def test_a_decision_is_made_from_it(service: Service, place: Path) -> None:
    after = BLOCKS[[block.key[1] for block in BLOCKS].index(STAYS) + 1 :]
    program, *rest = after
    shown = {"20.0": "free_shipping", "90.0": "discount_10"}
    made: list[list[str]] = []
    for _ in range(5):  # one decision in thirty explores
        answer = say(program, place, service.target)
        assert answer.returncode == 0, answer.stderr
        made += [line.split() for line in answer.stdout.splitlines()]
        if [shown[basket] for basket, *_ in made[-2:]] == [action for _, action, *_ in made[-2:]]:
            break
    else:
        raise AssertionError(f"it decides otherwise than the tutorial shows: {made}")
    for basket, action, propensity, version in made:
        assert version.startswith("g1.0-")
        assert (float(propensity) > 0.9) is (action == shown[basket])
    for block in rest:
        for line in lines_of(block, service):
            done = say(line, place)
            assert done.returncode == 0, f"{line.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("key", SERVED, ids=lambda key: f"{key[0]}-{key[1][:40]}")
def test_what_other_pages_say_to_it_can_be_said(service: Service, place: Path, key: tuple[str, str]) -> None:
    [block] = [each for each in live("sh") if each.key == key]
    for line in lines_of(block, service):
        done = say(line, place)
        assert done.returncode in SERVED[key], f"{line.text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
