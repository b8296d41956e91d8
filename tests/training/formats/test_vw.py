"""Vowpal Wabbit itself reads what we write: every action, feature and tag, and the label on the action chosen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks._peer_environment import python
from engine.records import Feedback
from tests.training.world import World
from training.formats import write_cb_adf, write_dsjson

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "peers" / "vw_read.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interpreter() -> str:
    found, why = python("vowpalwabbit==9.11.9")
    if found is None:
        pytest.skip(why)
    return found


def read_by_vw(interpreter: str, kind: str, path: Path) -> list[list[dict[str, Any]]]:
    """Return its examples: the shared one first, then each action."""
    result = subprocess.run([interpreter, PROGRAM, kind, path], check=True, capture_output=True, text=True, timeout=120)
    found: list[list[dict[str, Any]]] = json.loads(result.stdout)
    return found


def check(feedback: Feedback, read: list[dict[str, Any]], actions: list[str], chosen: int) -> None:
    shared, *offered = read
    assert shared["features"] == 1 + 4 + 1  # text, vector and the constant
    assert [action["tag"] for action in offered] == actions
    assert {action["features"] for action in offered} == {2}
    for place, action in enumerate(offered):
        if place == chosen:
            [[cost, probability]] = action["costs"]
            decision = feedback.decision
            assert cost == -feedback.reward
            # Its parser of numbers in texts is good for six digits.
            assert probability == pytest.approx(decision.probabilities[decision.chosen], rel=1e-6)
        else:
            assert action["costs"] == []


@pytest.mark.parametrize("kind", ["dsjson", "text"])
def test_vw_reads_what_we_write(interpreter: str, kind: str, tmp_path: Path) -> None:
    feedbacks = World(5).stream(None, 50, excluded=True)
    path = tmp_path / "log"
    write = write_dsjson if kind == "dsjson" else write_cb_adf
    path.write_text("\n".join(write(feedbacks)) + "\n")
    read = read_by_vw(interpreter, kind, path)
    assert len(read) == 50
    for feedback, examples in zip(feedbacks, read, strict=True):
        decision = feedback.decision
        kept = [i for i, action in enumerate(decision.actions) if kind == "dsjson" or not action.excluded]
        check(feedback, examples, [decision.actions[i].id for i in kept], kept.index(decision.chosen))
