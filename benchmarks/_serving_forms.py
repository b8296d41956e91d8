"""The servers of the serving benchmark, each a process of its own on one core."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from benchmarks import _bandit_peer, _peer_environment
from benchmarks._serving_workload import Shape
from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse
from engine.store import PolicyStore

MLSERVER = "mlserver==1.7.1"
START_S = 60.0


@dataclass
class Form:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    messages: list[bytes] = field(default_factory=list)  # what it is to be asked, where that is its own affair


@cache
def cores() -> tuple[set[int], set[int]]:
    """Return the core of the servers and that of who asks; the same where there is one alone.

    Of those that this process had when it was asked first: it then keeps to one of them.
    """
    every = sorted(os.sched_getaffinity(0))
    return {every[-1]}, {every[0]}


def start(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server on the servers' core."""
    theirs, _ = cores()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    os.sched_setaffinity(process.pid, theirs)
    return process


def announced(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what a server says of itself in its first line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a server ended with code {process.wait()} before it had a port: {process.args!r}")
    return dict(json.loads(line))


@contextmanager
def running(forms: dict[str, Form]) -> Iterator[dict[str, Form]]:
    """Kill the servers at the end."""
    try:
        yield forms
    finally:
        for form in forms.values():
            form.process.kill()
            form.process.wait()


def echo(workers: int, actions: int = 10) -> Form:
    """Start a bare grpcio server that answers each request with one and the same message."""
    program = f"from benchmarks._serving_forms import serve_echo; serve_echo({workers}, {actions})"
    process = start([sys.executable, "-c", program])
    return Form(process, announced(process)["port"])


def serve_echo(workers: int, actions: int) -> None:
    answer = DecideResponse(
        decision_id="0" * 32,
        action="action-3",
        action_index=3,
        propensity=0.1,
        probabilities=[1.0 / actions] * actions,
        policy_version="g1.0-00000000",
    )

    def handle(_request: DecideRequest, _context: grpc.ServicerContext) -> DecideResponse:
        return answer

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(workers))
    handler = grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=DecideRequest.FromString, response_serializer=DecideResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("leeway.v1.Leeway", {"Decide": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


def leeway(
    folder: Path,
    policies: Mapping[str, tuple[str, Shape]],
    *,
    durability: str = "memory",
    fsync: bool = False,
    workers: int | None = None,
    front: str = "grpcio",
) -> Form:
    """Start ``leeway serve`` on decision points that serve trained policies of the given kinds and shapes."""
    folder.mkdir()
    points = {name: shape.point() for name, (_, shape) in policies.items()}
    config = {
        "version": 1,
        "decision_points": points,
        "serving": {
            "port": 0,
            "front": front,
            "durability": durability,
            **({} if workers is None else {"workers": workers}),
        },
        "metrics": {"serving_port": 0, "pipeline_port": 0},
        "log": {"fsync": fsync},
    }
    path = folder / "leeway.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))  # the order of the features is that of the columns
    store = PolicyStore(folder / "leeway-data" / "policies")
    for name, (kind, shape) in policies.items():
        store.publish(shape.policy(kind, name))
    process = start([sys.executable, "-m", "streaming.cli", "serve", "--config", str(path)])
    found = folder / "leeway-data" / "run" / "serve.json"
    end = time.monotonic() + START_S
    while not found.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"leeway serve does not start; try it by hand on {path}")
        time.sleep(0.05)
    return Form(process, int(json.loads(found.read_text())["port"]))


def vowpal_wabbit(workers: int) -> Form | str:
    """Start VW's binding behind grpcio; a text says why it cannot be had."""
    peer = _bandit_peer.VOWPAL_WABBIT_SERVING
    interpreter, problem = _bandit_peer.python(peer)
    if interpreter is None:
        return problem
    process = start([interpreter, "-m", peer.program, str(workers)])
    return Form(process, announced(process)["port"])


def mlserver(folder: Path, shape: Shape) -> Form | str:
    """Start MLServer with an equal linear model; a text says why it cannot be had."""
    interpreter, problem = _peer_environment.python(MLSERVER)
    if interpreter is None:
        return problem
    contexts, actions = shape.numbers()
    rows = np.concatenate([np.repeat(contexts[:, None, :], shape.actions, axis=1), actions], axis=2)
    rng = np.random.default_rng(1)
    path = folder / "rows.npz"
    np.savez(path, rows=rows, theta=rng.normal(size=rows.shape[1:]).astype(np.float32))
    process = start([interpreter, "-m", "benchmarks.peers.mlserver_linear", str(path)])
    said = announced(process)
    return Form(process, said["port"], [base64.b64decode(message) for message in said["messages"]])
