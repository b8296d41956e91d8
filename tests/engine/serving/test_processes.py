from __future__ import annotations

import socket

import pytest
from pydantic import ValidationError

from engine.config import ServingConfig
from engine.serving.http.server import listen
from engine.serving.watcher import pause_s


def test_there_is_at_least_one_process() -> None:
    assert ServingConfig().processes == 1
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ServingConfig(processes=0)


def test_a_system_that_cannot_share_a_port_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServingConfig(processes=2).processes == 2
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    assert ServingConfig(processes=1).processes == 1
    with pytest.raises(ValidationError, match="SO_REUSEPORT, which this system does not have; set 1"):
        ServingConfig(processes=2)


def test_a_port_of_http_is_shared_by_those_alone_that_say_so() -> None:
    with listen("127.0.0.1", 0, shared=True) as one:
        port = one.getsockname()[1]
        with listen("127.0.0.1", port, shared=True):
            pass
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("now_s", [0.0, 0.01, 0.13, 0.49, 1_700_000_000.123])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_processes_look_for_policies_one_after_another_by_the_same_clock(now_s: float, processes: int) -> None:
    interval_s = 0.5
    at = sorted((now_s + pause_s(interval_s, k / processes, now_s)) % interval_s for k in range(processes))
    # Wherever each begins to wait, their looks are spread evenly over the interval.
    gaps = [(after - before) % interval_s for before, after in zip(at, [*at[1:], at[0]], strict=True)]
    assert gaps == pytest.approx([interval_s / processes] * processes, abs=1e-6)
    assert all(0 < pause_s(interval_s, k / processes, now_s) <= interval_s for k in range(processes))
