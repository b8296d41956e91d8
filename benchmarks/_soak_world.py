"""What the soak runs: a serving process and a worker on an embedded log, and callers of whom some die."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks._open_load import OK, Call
from benchmarks._serving_load import Connection, Load
from benchmarks._serving_workload import Shape
from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.api.leeway.v1.service_pb2 import ActivateRequest, DecideRequest, DecideResponse, ReportRequest
from engine.errors import SnapshotError
from engine.policy import Policy
from engine.records import Decision, JoinAccounting, new_id
from engine.replay import mismatch
from engine.store import PolicyStore
from streaming.embedded import EmbeddedLog
from streaming.insight import tail
from streaming.topics import DECISIONS

DECIDE, STREAM = "/leeway.v1.Leeway/Decide", "/leeway.v1.Leeway/DecideStream"
REPORT, ACTIVATE = "/leeway.v1.Leeway/Report", "/leeway.v1.Leeway/Activate"
SHAPE = Shape()
POINT = SHAPE.name
#: Of the decisions: whose outcome is reported; which wait to be activated; which of those are.
REPORTED, DEFERRED, ACTIVATED = 0.3, 0.1, 0.5
CALLS_PER_DECISION = 1.0 + REPORTED + DEFERRED * ACTIVATED
_START_S = 120.0
#: What a client that dies has under way.
_DYING = 32


class Callers:
    """Decisions with ids of their own; what follows each is sent when it was answered."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        requests = SHAPE.packed()
        self._at_once = [request.SerializeToString() for request in requests]
        self._deferred = [self._defer(request) for request in requests]
        self._outcomes = [ReportRequest(decision_point=POINT, value=value).SerializeToString() for value in (0.0, 1.0)]
        self._activation = ActivateRequest(decision_point=POINT).SerializeToString()
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.follow: list[tuple[str, bytes]] = []

    @staticmethod
    def _defer(request: DecideRequest) -> bytes:
        deferred = DecideRequest()
        deferred.CopyFrom(request)
        deferred.defer_activation = True
        return deferred.SerializeToString()

    def __call__(self, number: int) -> tuple[str, bytes]:
        forms = self._deferred if self._random.random() < DEFERRED else self._at_once
        # Fields of a message may stand in any order.
        return DECIDE, forms[number % len(forms)] + DecideRequest(decision_id=new_id()).SerializeToString()

    def heard(self, call: Call) -> None:
        """Look at an answer, and follow it up."""
        self.ends[f"{call.path.rpartition('/')[2]} {call.status}"] += 1
        if call.path != DECIDE or call.status != OK:
            return
        answer = DecideResponse.FromString(call.answer)
        if answer.propensity != answer.probabilities[answer.action_index]:
            self.wrong.append(f"{answer.decision_id}: was answered {answer.propensity}, which its vector does not say")
        if self._random.random() < REPORTED:
            outcome = self._outcomes[self._random.random() < 0.5]
            self.follow.append((REPORT, outcome + ReportRequest(decision_id=answer.decision_id).SerializeToString()))
        if self._random.random() < ACTIVATED and DecideRequest.FromString(call.message).defer_activation:
            activation = self._activation + ActivateRequest(decision_id=answer.decision_id).SerializeToString()
            self.follow.append((ACTIVATE, activation))


def die(port: int, *, stream: bool) -> None:
    """Be a client that is killed with calls under way, or with half of a message on its stream."""
    messages = [request.SerializeToString() for request in SHAPE.packed()]
    connection = Connection(Load(port, STREAM if stream else DECIDE, messages, window=_DYING, stream=stream))
    connection.receive(again=False)
    connection.begin()
    connection.socket.sendall(b"\0\2\0\0\0\0\0\0\1half")  # a frame of 512 bytes, of which four come
    # The kernel of a process that is killed may say no more than that nobody is there.
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


class World:
    """The processes, and what can be asked of them.

    Parameters
    ----------
    folder
        For configuration, data and messages.
    window_s
        Reward window.
    retention_s
        How long the log keeps records; the disk must have room for so much.
    """

    def __init__(self, folder: Path, window_s: float, retention_s: float) -> None:
        self.window_s = window_s
        self._data = folder / "leeway-data"
        self._path = folder / "leeway.yaml"
        self._messages = folder / "messages.txt"
        point = {
            **SHAPE.point(),
            "reward": {"window": f"{window_s:g}s", "grace": "1s"},
            "retraining": {"enabled": False},
        }
        point["policy"] = {**point["policy"], "publish_interval": "5s"}
        config = {
            "version": 1,
            "decision_points": {POINT: point},
            "serving": {"port": 0},
            "metrics": {"serving_port": 0, "pipeline_port": 0},
            "log": {"fsync": False, "retention": f"{retention_s:g}s"},
        }
        self._path.write_text(yaml.safe_dump(config, sort_keys=False))
        self._store = PolicyStore(self._data / "policies")
        self._policies: dict[str, Policy] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, role: str, cores: set[int]) -> None:
        """Start a role on some cores, and do not wait for it."""
        with self._messages.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "streaming.cli", role, "--config", str(self._path)], stdout=sink, stderr=sink
            )
        os.sched_setaffinity(process.pid, cores)
        self.processes[role] = process

    def runs(self, role: str) -> bool:
        """Whether a role has announced itself; raises ``RuntimeError`` where it has ended."""
        process = self.processes[role]
        if process.poll() is not None:
            raise RuntimeError(f"leeway {role} has ended: {self._messages.read_text()[-2_000:]}")
        return self._facts(role).get("pid") == process.pid

    def start(self, role: str, cores: set[int]) -> None:
        """Start a role on some cores, and wait until it has announced itself."""
        self.begin(role, cores)
        end = time.monotonic() + _START_S
        while not self.runs(role):
            if time.monotonic() > end:
                raise RuntimeError(f"leeway {role} does not start: {self._messages.read_text()[-2_000:]}")
            time.sleep(0.05)

    def end(self, role: str, number: signal.Signals) -> int:
        """Send a signal to a role, and return its exit status."""
        process = self.processes.pop(role)
        process.send_signal(number)
        return process.wait(_START_S)

    def _facts(self, role: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self._data / "run" / f"{role}.json").read_text()))
        except FileNotFoundError:
            return {}

    @property
    def port(self) -> int:
        return int(self._facts("serve")["port"])

    def swaps(self) -> int:
        """Return how many policies have come to serve."""
        url = f"http://127.0.0.1:{self._facts('serve')['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=_START_S) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return int(sum(s.value for f in families for s in f.samples if s.name == "leeway_policy_swaps_total"))

    def book(self) -> JoinAccounting:
        """Return the book of the join."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = admin_pb2_grpc.LeewayAdminStub(channel)
            return stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=_START_S).decision_points[0].accounting

    def logged(self) -> int:
        """Return how many decisions were ever written to the log."""
        log = EmbeddedLog(self._data / "log")
        try:
            return sum(log.ends(DECISIONS).values())
        finally:
            log.close()

    def audit(self, count: int) -> list[str]:
        """Compute some of the newest decisions again; return what differs, an empty text where nothing does."""
        log = EmbeddedLog(self._data / "log")
        try:
            values = tail(log, DECISIONS, 20 * count)
        finally:
            log.close()
        chosen = random.Random(len(self._policies)).sample(values, min(count, len(values)))
        return [self._difference(Decision.FromString(value)) for value in chosen]

    def _difference(self, decision: Decision) -> str:
        version = decision.policy_version
        try:
            if version not in self._policies:
                self._policies = {version: self._store.load(POINT, version)}
        except SnapshotError as error:
            return f"{decision.decision_id}: {error}"
        difference = mismatch(decision, self._policies[version])
        return f"{decision.decision_id}: {difference}" if difference else ""


@contextmanager
def world(folder: Path, window_s: float, retention_s: float) -> Iterator[World]:
    """Kill what is left at the end."""
    made = World(folder, window_s, retention_s)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()
