"""What serving a decision costs beside a bare gRPC echo of the same messages, and beside other Python servers.

Each server is a process of its own on one core, and who asks has the other; they take turns, and a figure is the
median of the rounds. Besides calls per second and latency there is the server's own CPU time for a call, which other
load on the machine moves least.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._harness import goal, main
from benchmarks._serving_forms import Form, cores, echo, leeway, mlserver, running, vowpal_wabbit
from benchmarks._serving_load import Load, burst
from benchmarks._serving_stages import timing_cost_us
from benchmarks._serving_workload import Shape, batches
from engine.api.leeway.v1.service_pb2 import DecideBatchItem, DecideBatchResponse, DecideResponse

DECIDE = "/leeway.v1.Leeway/Decide"
BATCH, STREAM = "/leeway.v1.Leeway/DecideBatch", "/leeway.v1.Leeway/DecideStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
BATCHED = 64
WORKERS = 8
SHAPE = Shape()
ACTIONS = [Shape(actions=actions) for actions in (2, 10, 100, 1_000)]
FEATURES = [Shape(context=4, features=2), SHAPE, Shape(context=100, features=50), Shape(context=400, features=200)]
CONCURRENCY = (1, 8, 64)
LEAN = "linear, lean front"
THREADS = "linear, grpcio's own threads"

Figures = dict[str, float]


class Rounds:
    """Loads that take turns."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = forms
        self._loads: dict[str, tuple[str, Load, int]] = {}
        self._runs: dict[str, list[Figures]] = {}

    def add(self, name: str, form: str, load: Load, decisions: int = 1) -> None:
        """Add a load on a server; ``decisions``: of one call."""
        self._loads[name] = (form, replace(load, port=self._forms[form].port), decisions)
        self._runs[name] = []

    def run(self, repeats: int, seconds: float) -> dict[str, Figures]:
        """Return the medians of each load."""
        for _ in range(repeats):
            for name, (form, load, decisions) in self._loads.items():
                measured = burst(load, self._forms[form].process.pid, seconds)
                _check(load, measured.answer, decisions)
                figures = measured.figures()
                figures["per_second"] *= decisions
                figures["cpu_us"] /= decisions
                self._runs[name].append(figures)
        return {
            name: {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
            for name, runs in self._runs.items()
        }


def _check(load: Load, answer: bytes, decisions: int) -> None:
    """Refuse figures of answers that are none: a fallback, a refused item, a policy that has learned nothing."""
    if load.path == INFER:
        return
    if load.path == BATCH:
        answers = [item.response for item in DecideBatchResponse.FromString(answer).items]
    elif load.path == STREAM:
        answers = [DecideBatchItem.FromString(answer).response]
    else:
        answers = [DecideResponse.FromString(answer)]
    good = [given for given in answers if given.action and not given.fallback]
    if len(good) != decisions or any(given.policy_version.startswith("g0.") for given in good):
        raise RuntimeError(f"{load.path} gave no whole answer: {answers[:1]}")


def _decide(shape: Shape, name: str = "", *, connections: int = 8, window: int = 1) -> Load:
    messages = [request.SerializeToString() for request in shape.packed(name)]
    return Load(0, DECIDE, messages, connections, window)


def compare(folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Measure the server forms on the same requests."""
    policies = {SHAPE.name: ("linear", SHAPE), "trees": ("lightgbm", SHAPE)}
    forms = {"echo": echo(WORKERS), "leeway": leeway(folder / "memory", policies)}
    missing: dict[str, str] = {}
    with running(forms):
        forms["leeway, lean"] = leeway(folder / "lean", policies, front="lean")
        forms["leeway, threads"] = leeway(folder / "threads", policies, front="threads")
        forms["leeway, disk"] = leeway(folder / "disk", policies, durability="disk")
        forms["leeway, disk and fsync"] = leeway(folder / "fsync", policies, durability="disk", fsync=True)
        for name, peer in (("mlserver", mlserver(folder, SHAPE)), ("vowpal_wabbit", vowpal_wabbit(WORKERS))):
            if isinstance(peer, str):
                missing[name] = peer
            else:
                forms[name] = peer
        rounds = Rounds(forms)
        packed = _decide(SHAPE)
        named = replace(packed, messages=[request.SerializeToString() for request in SHAPE.named()])
        rounds.add("echo", "echo", packed)
        rounds.add("linear", "leeway", packed)
        rounds.add("lightgbm", "leeway", _decide(SHAPE, "trees"))
        rounds.add(LEAN, "leeway, lean", packed)
        rounds.add("lightgbm, lean front", "leeway, lean", _decide(SHAPE, "trees"))
        rounds.add(THREADS, "leeway, threads", packed)
        rounds.add("linear, disk", "leeway, disk", packed)
        rounds.add("linear, disk and fsync", "leeway, disk and fsync", packed)
        rounds.add("echo, named features", "echo", named)
        rounds.add("linear, named features", "leeway", named)
        for kind, name in (("linear", SHAPE.name), ("lightgbm", "trees")):
            batch = Load(0, BATCH, batches(SHAPE.packed(name), BATCHED), 2)
            rounds.add(f"{kind}, batch of {BATCHED}", "leeway", batch, BATCHED)
            stream = replace(_decide(SHAPE, name, connections=2, window=BATCHED), path=STREAM, stream=True)
            rounds.add(f"{kind}, stream", "leeway", stream)
        if "mlserver" in forms:
            rounds.add("mlserver", "mlserver", Load(0, INFER, forms["mlserver"].messages))
        if "vowpal_wabbit" in forms:
            rounds.add("vowpal_wabbit", "vowpal_wabbit", packed)
        found = rounds.run(repeats, seconds)
    return {"figures": found, "missing": missing}


def growth(folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Measure how the cost grows with actions, features and concurrency, the echo of the same requests beside it."""
    shapes = {shape.name: shape for shape in (*ACTIONS, *FEATURES)}
    forms = {"echo": echo(WORKERS), "leeway": leeway(folder / "growth", {n: ("linear", s) for n, s in shapes.items()})}
    with running(forms):
        rounds = Rounds(forms)
        for name, shape in shapes.items():
            for form in forms:
                rounds.add(f"{form} {name}", form, _decide(shape))
        for concurrency in CONCURRENCY:
            load = _decide(SHAPE, connections=min(concurrency, 8), window=max(1, concurrency // 8))
            for form in forms:
                rounds.add(f"{form} concurrency {concurrency}", form, load)
        found = rounds.run(repeats, seconds)

    def table(keys: Mapping[str, str]) -> dict[str, Any]:
        return {
            label: {
                **found[f"leeway {key}"],
                "per_echo": _ratio(found[f"leeway {key}"], found[f"echo {key}"]),
            }
            for label, key in keys.items()
        }

    return {
        "actions": table({str(shape.actions): shape.name for shape in ACTIONS}),
        "features": table({f"{shape.context} + {shape.features}": shape.name for shape in FEATURES}),
        "concurrency": table({str(c): f"concurrency {c}" for c in CONCURRENCY}),
    }


def _ratio(one: Figures, other: Figures, key: str = "per_second") -> float:
    return round(one[key] / other[key], 3)


def measure(quick: bool) -> dict[str, Any]:
    repeats, seconds = (3, 0.5) if quick else (7, 2.0)
    _, ours = cores()
    os.sched_setaffinity(0, ours)
    with tempfile.TemporaryDirectory() as folder:
        compared = compare(Path(folder), repeats, seconds)
        # Short ones: seconds of decisions among 1,000 actions are more than a disk takes, and the log refuses them.
        grown = growth(Path(folder), max(1, repeats // 2), min(seconds, 0.5))
    found = compared["figures"]
    timing = timing_cost_us()
    linear, bare = found["linear"], found["echo"]
    share = timing / linear["cpu_us"]
    batch = _ratio(found[f"linear, batch of {BATCHED}"], linear)
    ratios = {name: _ratio(figures, bare) for name, figures in found.items() if name != "echo"}
    p99 = _ratio(linear, bare, "p99_ms")
    goals = [
        goal("linear: decisions per echo", ratios["linear"], ">= 0.8", ratios["linear"] >= 0.8),
        goal("linear: p99 of the echo's", p99, "<= 1.3", p99 <= 1.3),
        goal("linear, lean front: decisions per echo of grpcio", ratios[LEAN], ">= 1.3", ratios[LEAN] >= 1.3),
        goal("lightgbm: decisions per echo", ratios["lightgbm"], ">= 0.65", ratios["lightgbm"] >= 0.65),
        goal(f"batch of {BATCHED}: decisions per single ones", batch, ">= 8", batch >= 8.0),
        goal("timing of the stages, share of a decision's CPU time", round(share, 4), "< 0.02", share < 0.02),
    ]
    if "mlserver" in found:
        peer = _ratio(linear, found["mlserver"])
        goals.append(goal("linear: decisions per inference of MLServer", peer, ">= 3", peer >= 3.0))
    return {
        "repeats": repeats,
        "seconds": seconds,
        "in_flight": 8,
        "server_workers": WORKERS,
        **compared,
        "per_echo": ratios,
        "timing_us_per_decision": round(timing, 3),
        "growth": grown,
        "goals": goals,
    }


if __name__ == "__main__":
    main(__doc__, measure)
