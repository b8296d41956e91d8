"""What a decision costs over the transport alone: `Decide` beside a bare gRPC echo of the same messages.

Server and echo run in processes of their own and take turns; eight callers ask without pause. The log is on, once
with ``fsync`` (safe from power loss) and once without (safe from kill -9).
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from benchmarks._harness import main
from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse
from engine.client import decide_request

CALLERS = 8
METHOD = "/leeway.v1.Leeway/Decide"


def request() -> DecideRequest:
    context = np.linspace(0.0, 1.0, 64, dtype="<f4").tobytes()
    made = decide_request("digits", context, [str(action) for action in range(10)])
    made.decision_id = ""
    return made


def echo() -> None:
    """Run an echo server until killed; prints its port."""
    answer = DecideResponse(decision_id="0" * 32, action="3", probabilities=[0.1] * 10, policy_version="g0.0-00000000")

    def handle(_request: DecideRequest, _context: grpc.ServicerContext) -> DecideResponse:
        return answer

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(CALLERS))
    handler = grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=DecideRequest.FromString, response_serializer=DecideResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("leeway.v1.Leeway", {"Decide": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def burst(target: str, seconds: float) -> dict[str, float]:
    """Ask for some seconds; return decisions per second and latencies in milliseconds."""
    latencies: list[float] = []
    lock = threading.Lock()
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            METHOD, request_serializer=DecideRequest.SerializeToString, response_deserializer=DecideResponse.FromString
        )
        call(request(), wait_for_ready=True, timeout=30.0)
        end = time.perf_counter() + seconds

        def ask() -> None:
            mine: list[float] = []
            message = request()
            while time.perf_counter() < end:
                started = time.perf_counter()
                call(message, timeout=30.0)
                mine.append(time.perf_counter() - started)
            with lock:
                latencies.extend(mine)

        threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    cuts = statistics.quantiles(latencies, n=100)
    return {"per_second": len(latencies) / seconds, "p50_ms": 1_000 * cuts[49], "p99_ms": 1_000 * cuts[98]}


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(pid: int, target: str, seconds: float) -> dict[str, float]:
    """Return what a burst gives, and the processor time of the server for each decision."""
    before = cpu_seconds(pid)
    found = burst(target, seconds)
    return {**found, "server_cpu_us": 1e6 * (cpu_seconds(pid) - before) / (found["per_second"] * seconds)}


def serve(
    directory: Path, *, fsync: bool, serving: Mapping[str, Any] | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start ``leeway serve`` and return it with its address."""
    directory.mkdir()
    config = {
        "version": 1,
        "decision_points": {"digits": {"context": {"pixels": {"type": "vector", "size": 64}}}},
        "serving": {"port": 0, **(serving or {})},
        "metrics": {"serving_port": 0, "pipeline_port": 0},
        "log": {"fsync": fsync},
    }
    path = directory / "leeway.yaml"
    path.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.cli", "serve", "--config", str(path)], stderr=subprocess.DEVNULL
    )
    found = directory / "leeway-data" / "run" / "serve.json"
    while not found.exists():
        time.sleep(0.05)
    facts = json.loads(found.read_text())
    return process, f"{facts['host']}:{facts['port']}"


def measure(quick: bool) -> dict[str, Any]:
    repeats, seconds = (3, 1.0) if quick else (7, 3.0)
    with tempfile.TemporaryDirectory() as folder:
        base = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.decide import echo; echo()"], stdout=subprocess.PIPE
        )
        assert base.stdout is not None
        forms = {"echo": (base, f"127.0.0.1:{int(base.stdout.readline())}")}
        forms["decide, fsync"] = serve(Path(folder) / "safe", fsync=True)
        forms["decide, no fsync"] = serve(Path(folder) / "fast", fsync=False)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
        try:
            for _ in range(repeats):
                for name, (process, target) in forms.items():
                    runs[name].append(measured(process.pid, target, seconds))
        finally:
            for process, _ in forms.values():
                process.kill()
                process.wait()
    medians = {
        name: {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}
        for name, found in runs.items()
    }
    ratios = {
        name: round(found["per_second"] / medians["echo"]["per_second"], 3)
        for name, found in medians.items()
        if name != "echo"
    }
    return {"repeats": repeats, "callers": CALLERS, "medians": medians, "decisions_per_echo": ratios}


if __name__ == "__main__":
    main(__doc__, measure)
