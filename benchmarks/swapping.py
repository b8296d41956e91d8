"""What a serving process takes to start and to hold policies, and what callers feel when a policy is swapped.

Start: from the command to health ``SERVING``. Memory: the proportional set size after the start, with one policy and
with nine of a kind. Swap: bursts of calls, eight in flight without pause, in turns with and without another policy
being published meanwhile; the first call that fails ends its burst, and is counted. The limit of a swap is the same
server without one, in the same run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks._harness import goal, main
from benchmarks._serving_forms import Form, cores, leeway, running
from benchmarks._serving_load import Burst, Load, burst
from benchmarks._serving_workload import Shape
from engine.api.leeway.v1.service_pb2 import DecideResponse
from engine.store import PolicyStore

DECIDE = "/leeway.v1.Leeway/Decide"
SHAPE = Shape()
KINDS = ("linear", "lightgbm")
MORE = 8
#: A burst is so long; a policy is published when a fifth of it is over.
BURST_S = 1.0


def started(folder: Path, policies: dict[str, tuple[str, Shape]]) -> tuple[Form, float]:
    """Start a server; return it with the seconds until it says that it serves."""
    began = time.perf_counter()
    form = leeway(folder, policies)
    with grpc.insecure_channel(f"127.0.0.1:{form.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        while stub.Check(health_pb2.HealthCheckRequest(), timeout=30.0, wait_for_ready=True).status != serving:
            time.sleep(0.01)
    return form, time.perf_counter() - began


def resident_mb(pid: int) -> float:
    """Return the proportional set size of a process: what it shares with others counts in part."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1_024


def memory(folder: Path, repeats: int) -> dict[str, Any]:
    """Measure start and memory."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        starts: list[float] = []
        ones: list[float] = []
        manies: list[float] = []
        for turn in range(repeats):
            for count, kept in ((1, ones), (1 + MORE, manies)):
                policies = {f"p{number}": (kind, SHAPE) for number in range(count)}
                form, seconds = started(folder / f"{kind}-{count}-{turn}", policies)
                with running({"": form}):
                    load = Load(form.port, DECIDE, [r.SerializeToString() for r in SHAPE.packed("p0")])
                    burst(load, form.process.pid, 0.2)
                    kept.append(resident_mb(form.process.pid))
                if count == 1:
                    starts.append(seconds)
        one, many = statistics.median(ones), statistics.median(manies)
        found[kind] = {
            "start_seconds": round(statistics.median(starts), 2),
            "process_mb": round(one, 1),
            "mb_per_policy": round((many - one) / MORE, 2),
            "policy_file_kb": round(_npz_bytes(folder / f"{kind}-1-0" / "leeway-data" / "policies" / "p0") / 1_024, 1),
        }
    return found


def _npz_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.npz"))


def swap(folder: Path, kind: str, rounds: int) -> dict[str, Any]:
    """Measure bursts with and without a swap, in turns."""
    form, _ = started(folder / f"swap-{kind}", {"p": (kind, SHAPE)})
    store = PolicyStore(folder / f"swap-{kind}" / "leeway-data" / "policies")
    load = Load(form.port, DECIDE, [request.SerializeToString() for request in SHAPE.packed("p")])
    policy = SHAPE.policy(kind, "p")
    latencies: dict[str, list[float]] = {"without": [], "with": []}
    failed = 0
    with running({"": form}):
        for number in range(rounds):
            latencies["without"].append(_p99(burst(load, form.process.pid, BURST_S)))
            another = replace(policy, update=1 + number)
            timer = threading.Timer(BURST_S / 5.0, store.publish, (another,))
            timer.start()
            try:
                felt = burst(load, form.process.pid, BURST_S)
            except ConnectionError:  # the burst ends with the first call that fails
                failed += 1
                continue
            finally:
                timer.join()
            version = DecideResponse.FromString(felt.answer).policy_version
            if version != another.version:
                raise RuntimeError(f"{another.version} was published, and {version} answers at the end of the burst")
            latencies["with"].append(_p99(felt))
    quiet, moved = (statistics.median(latencies[key]) for key in ("without", "with"))
    return {
        "swaps": rounds,
        "failed_calls": failed,
        "p99_ms_without": round(quiet, 3),
        "p99_ms_with": round(moved, 3),
        "ratio": round(moved / quiet, 3),
    }


def _p99(felt: Burst) -> float:
    return felt.figures()["p99_ms"]


def measure(quick: bool) -> dict[str, Any]:
    repeats, rounds = (1, 5) if quick else (3, 21)
    _, ours = cores()
    os.sched_setaffinity(0, ours)
    with tempfile.TemporaryDirectory() as folder:
        held = memory(Path(folder), repeats)
        swaps = {kind: swap(Path(folder), kind, rounds) for kind in KINDS}
    goals = [
        goal(f"{kind}: p99 of the second of a swap, of that without", found["ratio"], "<= 2", found["ratio"] <= 2.0)
        for kind, found in swaps.items()
    ]
    goals += [
        goal(f"{kind}: failed calls in {found['swaps']} swaps", found["failed_calls"], "= 0", not found["failed_calls"])
        for kind, found in swaps.items()
    ]
    return {"start_and_memory": held, "swap": swaps, "goals": goals}


if __name__ == "__main__":
    main(__doc__, measure)
