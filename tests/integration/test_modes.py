"""Modes and deferred activation through all processes: what acts, what is learned, and that the books balance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.client import Choice
from tests.integration.service import eventually, leeway, running, settings

POINT = {
    "context": {"x": {"type": "vector", "size": 2}},
    "reward": {"window": "2s", "grace": "100ms"},
    "policy": {"publish_interval": "50ms"},
    "retraining": {"enabled": False},
}
COUNT = 60


@pytest.mark.slow
def test_each_mode_does_what_it_says_in_a_whole_service(tmp_path: Path) -> None:
    points = {mode: {**POINT, "mode": mode} for mode in ("online", "logging_only", "apprentice")}
    with running(tmp_path, settings(points)) as service, service.client() as client:

        def ask(mode: str, number: int) -> None:
            side = number % 2
            choice = Choice(side, [0.75, 0.25] if mode == "logging_only" else [])
            x = [1.0 - side, float(side)]
            made = client.decide(mode, {"x": x}, ["a", "b"], f"{mode}{number}", choice=choice, defer_activation=True)
            stated = choice.probabilities[side] if choice.probabilities else 1.0
            assert mode == "online" or (made.action, made.propensity) == ("ab"[side], stated)
            if number % 3:
                client.activate(made.decision_id, point=mode)
            client.report(made.decision_id, 0.0, point=mode)

        for number in range(COUNT):
            for mode in points:
                ask(mode, number)
        for mode in points:
            book = service.settled(mode)
            assert (book.decisions, book.feedback, book.unactivated) == (COUNT, COUNT * 2 // 3, COUNT // 3)
            assert (book.defaulted, book.dead_letters) == (0, 0)
        eventually(lambda: service.status("online").learned == COUNT * 2 // 3, "the policy learns")
        eventually(
            lambda: service.status("apprentice").learned == 2 * COUNT * 2 // 3, "the apprentice learns both rows"
        )
        assert service.status("logging_only").learned == 0
        assert service.status("logging_only").mode == "logging_only"
        for number in range(COUNT, 2 * COUNT):
            ask("apprentice", number)
        assert service.metric("serve", "leeway_apprentice_compared_total", decision_point="apprentice") == 2 * COUNT
        # Half of those that came before anything was learned; all of the others.
        agreed = service.metric("serve", "leeway_apprentice_agreed_total", decision_point="apprentice")
        assert 1.5 * COUNT <= agreed <= 2 * COUNT
        said = leeway("agreement", "--config", service.path, "--decision-point", "apprentice", "--json")
        assert json.loads(said.stdout)["agreement"] == agreed / (2 * COUNT)
        replayed = leeway("replay", "--config", service.path, "--json")
        assert replayed.returncode == 0, replayed.stderr
