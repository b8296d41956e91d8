"""Training throughput of ELBO_TDS beside a twin in PyTorch, and peak memory over more days."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _peer_environment
from benchmarks._temporal_generator import GeneratedSessions, World
from engine.recommender.fields import Field, Rows
from engine.recommender.space import FieldSpace
from training.elbo_tds.batches import Batcher, Encoded
from training.elbo_tds.config import ElboTdsConfig
from training.elbo_tds.model import ElboTds
from training.elbo_tds.pipeline import train_recommender

ROOT = Path(__file__).parents[1]
REQUIREMENT = "torch==2.13.0"
#: The fields of KuaiRand-Pure as the authors' team encodes it, and a history of 20.
FIELDS = {
    "user": {"statistical": 0, "categorical": 30, "sequential": 1},
    "item": {"statistical": 52, "categorical": 11, "sequential": 0},
}
SESSIONS, ROWS, VOCABULARY, LENGTH = 32, 384, 1_000, 20


def model_and_batches(config: ElboTdsConfig) -> tuple[ElboTds, Batcher, list[Encoded]]:
    """Return a model of those sizes and random sessions."""
    fields = {
        side: (
            *(Field(f"{side}_s{n}", "statistical") for n in range(of["statistical"])),
            *(Field(f"{side}_c{n}", "categorical") for n in range(of["categorical"])),
            *(Field(f"{side}_q{n}", "sequential", length=LENGTH) for n in range(of["sequential"])),
        )
        for side, of in FIELDS.items()
    }
    edges = {field.name: np.arange(49.0) for side in fields.values() for field in side if field.kind == "statistical"}
    texts = [str(n) for n in range(VOCABULARY - 2)]
    vocabularies = {field.name: texts for side in fields.values() for field in side if field.coded}
    space = FieldSpace(fields["user"], fields["item"], edges, vocabularies)
    model = ElboTds(config, fields["user"], fields["item"], ("click",), space=space)
    rng = np.random.default_rng(0)

    def rows(n: int, of: dict[str, int]) -> Rows:
        return Rows(
            rng.integers(0, 50, (n, of["statistical"]), dtype=np.int32),
            rng.integers(0, VOCABULARY, (n, of["categorical"]), dtype=np.int32),
            rng.integers(1, VOCABULARY, (n, of["sequential"], LENGTH), dtype=np.int32),
            np.zeros((n, 0), np.float32),
        )

    session = (np.arange(ROWS) * SESSIONS // ROWS).astype(np.int32)
    parts = [
        Encoded(
            rows(SESSIONS, FIELDS["user"]),
            rows(ROWS, FIELDS["item"]),
            session,
            (rng.random((ROWS, 1)) < 0.2).astype(np.float32),
        )
        for _ in range(8)
    ]
    return model, Batcher(space, model._layout, SESSIONS), parts


def rows_per_second(prepared: tuple[ElboTds, Batcher, list[Encoded]], seconds: float) -> float:
    """Return the rate of steps with the making of their batches."""
    model, batcher, parts = prepared
    for part in parts[:3]:
        model.take_step(batcher.batch([part]))
    model.losses()
    began, steps = time.perf_counter(), 0
    while steps < 10 or time.perf_counter() - began < seconds:
        model.take_step(batcher.batch([parts[steps % len(parts)]]))
        steps += 1
        if steps % 8 == 0:
            model.losses()  # waits for what was asked for so far
    model.losses()
    return steps * ROWS / (time.perf_counter() - began)


def twin(interpreter: str, seconds: float, *, sparse: bool) -> float:
    """Return the rate of the twin in PyTorch."""
    config = ElboTdsConfig()
    sizes = {
        **FIELDS,
        "embedding": config.embedding,
        "latent": config.latent,
        "hidden": config.hidden,
        "copies": config.copies,
        "sessions": SESSIONS,
        "rows": ROWS,
        "vocabulary": VOCABULARY,
        "threads": os.cpu_count() or 1,
        "seconds": seconds,
        "sparse": sparse,
    }
    program = Path(__file__).parent / "peers" / "torch_elbo_tds.py"
    done = subprocess.run(
        [interpreter, "-W", "ignore", program], input=json.dumps(sizes), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the twin in PyTorch: {done.stderr[-2_000:]}")
    return float(json.loads(done.stdout)["rows_per_second"])


def throughput(quick: bool) -> dict[str, Any]:
    """Return rows a second of each, in turns, and the median of the ratios of neighbours."""
    seconds, turns = (2.0, 2) if quick else (5.0, 5)
    forms = {
        "as released": ElboTdsConfig(),
        "expected noise, user copies once a session": ElboTdsConfig(noise="expected", user_draws="session"),
        "control with the bottleneck": ElboTdsConfig(alpha=0.0),
    }
    prepared = {name: model_and_batches(config) for name, config in forms.items()}
    interpreter, why = _peer_environment.python(REQUIREMENT)
    rates: dict[str, list[float]] = {name: [] for name in forms}
    twins: dict[str, list[float]] = {"PyTorch, sparse Adam": [], "PyTorch, dense Adam": []}
    for _ in range(turns):
        for name, found in rates.items():
            found.append(rows_per_second(prepared[name], seconds))
        if interpreter is not None:
            for (_, found), sparse in zip(twins.items(), (True, False), strict=True):
                found.append(twin(interpreter, seconds, sparse=sparse))
    result: dict[str, Any] = {name: statistics.median(found) for name, found in rates.items()}
    if interpreter is None:
        return {"rows_per_second": result, "peer": why, "ratio": None}
    best = [max(pair) for pair in zip(*twins.values(), strict=True)]
    result |= {name: statistics.median(found) for name, found in twins.items()}
    ratios = {
        name: statistics.median(ours / theirs for ours, theirs in zip(found, best, strict=True))
        for name, found in rates.items()
    }
    return {"rows_per_second": result, "ratio": ratios["as released"], "ratios_to_the_faster_twin": ratios}


def peak_memory(days: int) -> float:
    """Return the peak of resident memory of a process that trains on so many days, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._temporal_speed", str(days)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(f"training on {days} days: {done.stderr[-2_000:]}")
    return float(done.stdout.split()[-1])


def memory(quick: bool) -> dict[str, float]:
    """Return peaks with some days and with twice as many, of a world whose items stay."""
    days = 3 if quick else 10
    once, twice = peak_memory(days), peak_memory(2 * days)
    return {"days": days, "megabytes": once, "megabytes_twice_the_days": twice, "ratio": twice / once}


if __name__ == "__main__":
    world = World(days=int(sys.argv[1]), sessions=1_000, churn=0.0)
    with tempfile.TemporaryDirectory() as directory:
        train_recommender(
            ElboTdsConfig(noise="expected", user_draws="session"),
            GeneratedSessions(0, world),
            Path(directory),
            chunks=4,
        )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)
