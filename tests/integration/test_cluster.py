"""``python -m deploy.cluster``: every process of an installation on Kafka, MLflow and Prometheus, from start to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service import ROOT, eventually, marked

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1_200)]


def start(directory: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deploy.cluster", "--dir", str(directory), "--patience", "300", *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def needs_kafka(said: str) -> None:
    if "this machine cannot run Kafka" in said and os.environ.get("LEEWAY_REQUIRE_KAFKA") != "1":
        pytest.skip(said)


def end(process: subprocess.Popen[str], directory: Path, number: signal.Signals) -> None:
    """End what is still there, however the test went."""
    if process.poll() is None:
        process.send_signal(number)
        process.wait(180)
    assert not marked(str(directory))


def test_the_whole_topology_closes_its_books_and_is_gone_afterwards(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    process = start(directory, "--json", str(tmp_path / "figures.json"))
    try:
        _, said = process.communicate()
    finally:
        end(process, directory, signal.SIGTERM)
    needs_kafka(said)
    assert (tmp_path / "figures.json").exists(), said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [goal for goal in figures["goals"] if not goal["holds"]] == [], said
    assert process.returncode == 0
    # Both servers decided, both members joined, each decision has one feedback, and Prometheus counted them all.
    assert all(share > 1_000 for share in figures["acknowledged_by_server"].values())
    assert all(commits > 10 for commits in figures["join_commits"])
    assert figures["decisions"] == figures["feedback"] == sum(figures["acknowledged_by_server"].values())
    assert figures["defaulted"] > 0
    assert figures["dead_letters"] > 0  # outcomes of no decision
    if shutil.which("prometheus"):
        assert figures["prometheus_decisions"] == figures["decisions"]
        assert {"join", "learner", "monitor", "archive", "retrainer"} <= set(figures["roles_at_work"])
        assert figures["prometheus_roles"] == len(figures["roles_at_work"])
    else:
        assert "Prometheus is left out" in said
    costs = figures["cpu_us_per_decision"]
    assert {"serve-1", "serve-2", "join-1", "join-2", "work-1", "kafka"} <= costs.keys()
    assert figures["topic_bytes_per_decision"]["decisions"] > 500
    assert figures["archive_bytes_per_decision"] > 0


@pytest.mark.parametrize("phase", ["starting the roles of Leeway", "everything is ready"])
def test_ctrl_c_ends_everything_at_any_time(tmp_path: Path, phase: str) -> None:
    directory = tmp_path / "cluster"
    process = start(directory, "--stay")
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if phase in line:
                break
        needs_kafka("".join(lines))
        assert phase in lines[-1], lines
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # impatience must not leave anything behind
        lines += process.communicate()[1].splitlines()
    finally:
        end(process, directory, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT, lines
    eventually(lambda: not marked(str(directory)), "the end of every process")
