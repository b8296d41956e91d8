"""The sketch of the join on Flink: it and the join in Python are held to the same cases."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.config import RewardConfig
from engine.records import DeadLetterReason, Decision, Feedback, Outcome
from streaming.counting import identity_of
from streaming.join import Joiner, Source
from streaming.log import Record
from tests.deploy.conftest import ROOT

PROJECT = ROOT / "deploy" / "flink"
CASES = json.loads((PROJECT / "src" / "test" / "resources" / "cases.json").read_text())
POINT = "page"
DROPPED = ("duplicate_decisions", "duplicate_outcomes", "surplus_outcomes")


def record(message: Decision | Outcome) -> Record:
    return Record("", 0, 0, 0, message.decision_id.encode(), message.SerializeToString())


def joined(case: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the join in Python makes of a case."""
    joiner = Joiner({POINT: RewardConfig.model_validate(case["reward"])})
    for step in case["steps"]:
        [(kind, said)] = step.items()
        if kind == "decision":
            decision = Decision(decision_id=said[0], decision_point=POINT, time_ms=said[1])
            joiner.on_decision(decision, record(decision))
        elif kind == "outcome":
            outcome = Outcome(decision_id=said[0], outcome_id=said[1], time_ms=said[2], value=said[3])
            joiner.on_outcome(outcome, record(outcome))
        else:
            for source in Source:
                joiner.on_end(source, said)
    effects = joiner.drain()
    feedbacks = [Feedback.FromString(value) for _, _, _, value in effects.feedback]
    late = [Outcome.FromString(each.value or b"") for each in effects.late]
    books = joiner.accounting().values()
    dead = [
        f"{(each.record.key or b'').decode()} {DeadLetterReason.Name(each.reason).removeprefix('DEAD_LETTER_REASON_')}"
        for each in effects.rejected
    ]
    return {
        "feedback": [f"{each.decision.decision_id} {each.reward!r} {each.outcomes}" for each in feedbacks],
        "late": [f"{each.decision_id} {identity_of(each)}" for each in late],
        "dead": dead,
        "dropped": [name for name in DROPPED for _ in range(sum(getattr(book, name) for book in books))],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_join_in_python_does_what_the_case_says(case: dict[str, Any]) -> None:
    assert joined(case) == case["expected"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_join_on_flink_does_what_the_cases_say(tmp_path: Path) -> None:
    if not (shutil.which("mvn") and shutil.which("java")):
        pytest.skip("the sketch on Flink is tested by Maven and JDK 17, and one of them is not here")
    project = tmp_path / "flink"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target"))
    # What was fetched before is enough; only where it is not, Maven asks its repositories.
    for offline in (["-o"], []):
        command = ["mvn", *offline, "-q", "-B", "test"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=500, check=False)
        if "in offline mode" not in done.stdout:
            break
    if "Could not transfer artifact" in done.stdout or "Unknown host" in done.stdout:
        pytest.skip("Maven cannot reach its repositories, and has not fetched Flink before")
    assert done.returncode == 0, done.stdout[-4_000:]
    reports = "".join(path.read_text() for path in (project / "target" / "surefire-reports").glob("*.txt"))
    assert f"Tests run: {2 * len(CASES)}, Failures: 0, Errors: 0, Skipped: 0" in reports
