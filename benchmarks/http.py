"""What HTTP beside gRPC costs gRPC, and what a decision costs over HTTP.

Two servers run in processes of their own and take turns: one without HTTP, one with it. gRPC is measured at both, and
at the second also while one caller asks over HTTP at a steady rate. The log is on, without ``fsync``.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks._harness import main
from benchmarks.decide import burst, serve

RATE = 50
BODY = json.dumps(
    {
        "decision_point": "digits",
        "context": {"pixels": [place / 63.0 for place in range(64)]},
        "actions": [str(action) for action in range(10)],
    }
).encode()


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/v1/decide", BODY, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"HTTP answered {answer.status}")


def alone(port: int, seconds: float) -> dict[str, float]:
    """Ask over one HTTP connection without pause."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        ask(connection)
        latencies.append(time.perf_counter() - started)
    connection.close()
    cuts = statistics.quantiles(latencies, n=100)
    return {"per_second": len(latencies) / seconds, "p50_ms": 1_000 * cuts[49], "p99_ms": 1_000 * cuts[98]}


def beside(target: str, port: int, seconds: float) -> dict[str, float]:
    """Measure gRPC while one caller asks over HTTP at a steady rate."""
    stop = threading.Event()

    def steadily() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not stop.wait(1.0 / RATE):
            ask(connection)
        connection.close()

    caller = threading.Thread(target=steadily)
    caller.start()
    try:
        return burst(target, seconds)
    finally:
        stop.set()
        caller.join()


def measure(quick: bool) -> dict[str, Any]:
    repeats, seconds = (3, 1.0) if quick else (7, 3.0)
    runs: dict[str, list[dict[str, float]]] = {"grpc": [], "grpc, HTTP idle": [], "grpc, HTTP asked": [], "http": []}
    with tempfile.TemporaryDirectory() as folder:
        without, target = serve(Path(folder) / "without", fsync=False)
        having, other = serve(Path(folder) / "with", fsync=False, serving={"http": {"port": 0}})
        facts = json.loads((Path(folder) / "with" / "leeway-data" / "run" / "serve.json").read_text())
        try:
            for _ in range(repeats):
                runs["grpc"].append(burst(target, seconds))
                runs["grpc, HTTP idle"].append(burst(other, seconds))
                runs["grpc, HTTP asked"].append(beside(other, facts["http_port"], seconds))
                runs["http"].append(alone(facts["http_port"], seconds))
        finally:
            for process in (without, having):
                process.kill()
                process.wait()
    medians = {
        name: {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}
        for name, found in runs.items()
    }
    ratios = {
        name: round(
            statistics.median(a["per_second"] / b["per_second"] for a, b in zip(runs[name], runs["grpc"], strict=True)),
            3,
        )
        for name in ("grpc, HTTP idle", "grpc, HTTP asked")
    }
    return {
        "repeats": repeats,
        "http_per_second_beside": RATE,
        "medians": medians,
        "grpc_per_grpc_without_http": ratios,
    }


if __name__ == "__main__":
    main(__doc__, measure)
