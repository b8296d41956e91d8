"""Roles in threads: they wait in their steps, survive their errors, and end in good time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from engine.errors import LogError
from monitoring.role_metrics import RoleMetrics
from streaming import role_process
from streaming.config import load_config
from streaming.loop import IDLE_S, Loop
from streaming.role_process import RoleProcess


class Scripted:
    """A role that does what it is told, one thing a step, and then ends its loop."""

    def __init__(self, stop: threading.Event, *script: int | Exception) -> None:
        self._stop = stop
        self._script = list(script)
        self.timeouts: list[float] = []
        self.closed = False

    def step(self, *, timeout_s: float) -> int:
        self.timeouts.append(timeout_s)
        result = self._script.pop(0)
        if not self._script:
            self._stop.set()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self.closed = True


class Pauses(threading.Event):
    """An event that notes how long it was waited for, and does not let anybody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout or 0.0)
        return self.is_set()


def looped(*script: int | Exception) -> tuple[Scripted, Pauses, Callable[[str], float | None]]:
    registry = CollectorRegistry()
    stop = Pauses()
    role = Scripted(stop, *script)
    Loop("join", lambda: role, stop, RoleMetrics(registry, ["join"])).run()
    return role, stop, lambda name: registry.get_sample_value(name, {"role": "join"})


def test_who_has_records_goes_on_at_once_and_who_has_not_rests() -> None:
    role, stop, _ = looped(5, 0, 5)
    assert role.timeouts == [IDLE_S] * 3
    assert role.closed
    first, busy, idle, last = stop.noted
    assert (first, busy, last) == (0.0, 0.0, 0.0)
    assert 0.5 * IDLE_S < idle <= IDLE_S  # this role did not wait in its step


def test_errors_make_pauses_that_double_until_a_step_succeeds() -> None:
    role, stop, metric = looped(LogError("away"), LogError("away"), 1, LogError("away"), 1)
    assert stop.noted[:5] == pytest.approx([0.0, 0.2, 0.4, 0.0, 0.2])
    assert metric("leeway_role_errors_total") == 3
    assert metric("leeway_role_up") == 1
    assert role.closed


def test_a_role_that_waits_for_the_broker_does_not_keep_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(role_process, "END_S", 0.1)
    path = tmp_path / "leeway.yaml"
    path.write_text("version: 1\ndecision_points: {offers: {}}\n")
    begun, answered = threading.Event(), threading.Event()

    class Waiting:
        def step(self, *, timeout_s: float) -> int:
            begun.set()
            answered.wait()
            return 1

        def close(self) -> None: ...

    process = RoleProcess(load_config(path, {}), {"join": lambda _: Waiting()}, lambda: 0, CollectorRegistry(), 0)
    process.start()
    assert begun.wait(30.0)
    try:
        process.stop()
        assert "['join'] did not end" in caplog.text
    finally:
        answered.set()
        process.stop()
