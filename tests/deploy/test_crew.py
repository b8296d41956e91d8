"""Processes of the cluster: awaited with reasons, ended in order, and none left over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.cluster.costs import archive_bytes, cpu_seconds, spent, topic_bytes
from deploy.cluster.crew import Crew, free_port
from deploy.cluster.topology import COUNTS, ROLES, Topology, names
from engine.errors import LeewayError
from tests.integration.service import OFFERS, alive

SLEEPER = [sys.executable, "-c", "import time; print('began', flush=True); time.sleep(600)"]


def test_what_started_last_ends_first_and_nothing_is_left(tmp_path: Path) -> None:
    ended: list[str] = []
    with contextlib.suppress(KeyboardInterrupt), Crew(tmp_path, ended.append) as crew:
        crew.at_end(lambda: ended.append("all before"))
        crew.start("server", SLEEPER)
        crew.at_end(lambda: ended.append(f"server lives: {alive(crew.pids['server'])}"))
        crew.start("client", SLEEPER)
        raise KeyboardInterrupt
    assert ended == ["server lives: True", "all before"]
    assert not any(alive(pid) for pid in crew.pids.values())


def test_a_signal_in_the_midst_of_a_start_leaves_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("deploy.cluster.crew.subprocess.Popen", Interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        with contextlib.suppress(KeyboardInterrupt), Crew(tmp_path, lambda words: None) as crew:
            crew.start("server", SLEEPER)
            pytest.fail("the signal was lost")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(started) == 1
    assert not alive(started[0])


def test_a_child_of_a_process_does_not_outlive_it(tmp_path: Path) -> None:
    program = f"import subprocess; c = subprocess.Popen({SLEEPER!r}); print(c.pid, flush=True); c.wait()"
    with Crew(tmp_path, lambda words: None) as crew:
        crew.start("parent", [sys.executable, "-c", program])
        end = time.monotonic() + 60
        while "began" not in (tmp_path / "parent.log").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        child = int((tmp_path / "parent.log").read_text().split()[0])
        assert alive(child)
    end = time.monotonic() + 10
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)


def test_who_does_not_become_ready_is_named_with_the_reason(tmp_path: Path) -> None:
    with Crew(tmp_path, lambda words: None) as crew:
        crew.start("server", SLEEPER)
        assert crew.wait({"server": lambda: ""}, time.monotonic() + 60).keys() == {"server"}
        with pytest.raises(LeewayError, match="not ready in time; server: port 7 is closed"):
            crew.wait({"server": lambda: "port 7 is closed"}, time.monotonic())


def test_who_ends_while_others_wait_is_named_with_the_status_and_the_messages(tmp_path: Path) -> None:
    with Crew(tmp_path, lambda words: None) as crew:
        crew.start("server", [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(LeewayError, match=r"server ended with status 3; its messages are in .*server\.log"):
            crew.wait({"server": lambda: "not yet"}, time.monotonic() + 60)


def test_who_ignores_the_end_is_killed_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.cluster.crew.END_S", 0.2)
    said: list[str] = []
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    with Crew(tmp_path, said.append) as crew:
        crew.start("deaf", [sys.executable, "-c", program])
        end = time.monotonic() + 60
        while not (tmp_path / "deaf.log").read_text() and time.monotonic() < end:
            time.sleep(0.05)
    assert said == [f"deaf did not end in 0 s and is killed; see {tmp_path / 'deaf'}.log"]
    assert not alive(crew.pids["deaf"])


def test_a_free_port_is_free_with_those_above_it() -> None:
    port = free_port(20)
    for each in (port, port + 20):
        socket.create_server(("127.0.0.1", each)).close()


def test_every_process_has_a_folder_and_an_identity_of_its_own(tmp_path: Path) -> None:
    with Crew(tmp_path / "messages", lambda words: None) as crew:
        topology = Topology(tmp_path, {"offers": OFFERS}, crew, lambda words: None)
        topology.mlflow = "http://127.0.0.1:5000"
        topology.configure("127.0.0.1:9092")
        every = [name for role in ROLES for name in names(role)]
        configs = {name: topology.config(name) for name in every}
    assert COUNTS == {"work": 1, "join": 2, "serve": 2}
    assert len({config.data_dir for config in configs.values()}) == len(every) == 5
    identities = {name: getattr(config.log, "instance_id", None) for name, config in configs.items()}
    assert {name: who for name, who in identities.items() if who} == {"join-1": "join-1", "join-2": "join-2"}
    assert {config.tracking_uri for config in configs.values()} == {"http://127.0.0.1:5000"}


def test_costs_are_for_each_decision(tmp_path: Path) -> None:
    for name, size in (("decisions-0", 300), ("decisions-1", 100), ("join_state-0", 50)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000000000000000000.log").write_bytes(b"x" * size)
        (tmp_path / name / "00000000000000000000.index").write_bytes(b"x" * 999)
    assert topic_bytes(tmp_path, 4) == {"decisions": 100.0, "join_state": 12.5}
    (tmp_path / "offers").mkdir()
    (tmp_path / "offers" / "a.parquet").write_bytes(b"x" * 40)
    assert archive_bytes(tmp_path, 4) == 10.0
    assert spent({"serve": 1.0}, {"serve": 1.5}, 1_000) == {"serve": 500.0}
    before = cpu_seconds(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert cpu_seconds(os.getpid()) - before >= 0.05


def test_the_health_check_says_why_a_process_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    from deploy import health

    port = free_port()
    assert health.main(["grpc", f"127.0.0.1:{port}"]) == 1
    assert health.main(["roles", f"http://127.0.0.1:{port}/metrics"]) == 1
    assert capsys.readouterr().err.count("does not answer") == 2
    assert health.main(["serve"]) == 2
