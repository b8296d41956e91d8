"""An archive as large as one likes, its columns written by pyarrow in the form that ``ArchiveWriter`` gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.config import DecisionPoint
from training.archive.columns import CONTEXT, schema
from training.archive.manifest import Manifest, Part, write_manifest

NAME = "offers"
ACTIONS = 10
FEATURES = 20
DAYS = 20
START_MS = 1_767_225_600_000
_DAY_MS = 86_400_000
_PART = 262_144  # rows of a file
_GROUP = 65_536
_DELAY_MS = 600_000  # mean time from a decision to its feedback


def write_archive(directory: Path, point: DecisionPoint, rows: int, say: Callable[[str], None]) -> Path:
    """Write so many rows over ``DAYS`` days; they lie in the order in which their rewards came, as real ones do."""
    rng = np.random.default_rng(1)
    ids = pa.array([f"action-{a}" for a in range(ACTIONS)])
    taste = rng.normal(size=(FEATURES, ACTIONS)) / np.sqrt(FEATURES)
    parts: list[Part] = []
    for day in range(DAYS):
        first_ms, count = START_MS + day * _DAY_MS, rows * (day + 1) // DAYS - rows * day // DAYS
        times = first_ms + np.sort(rng.integers(0, _DAY_MS, count))
        times = times[np.argsort(times + rng.exponential(_DELAY_MS, count))]
        for begin in range(0, count, _PART):
            table = _table(point, times[begin : begin + _PART], ids, taste, rng)
            parts.append(_write(directory, table, len(parts), str(np.datetime64(first_ms // _DAY_MS, "D"))))
        say(f"archive: day {day + 1} of {DAYS}")
    write_manifest(directory, Manifest(len(parts), {0: rows}, tuple(parts)))
    return directory


def _table(point: DecisionPoint, times: Any, ids: Any, taste: Any, rng: np.random.Generator) -> Any:
    n = len(times)
    X = rng.normal(size=(n, FEATURES)).astype(np.float32).astype(np.float64)
    utility = X @ taste
    # Half the probability on what seems best by a noisy look, the rest on all alike.
    best = (utility + rng.normal(size=utility.shape)).argmax(axis=1)
    p = np.full((n, ACTIONS), 0.5 / ACTIONS)
    p[np.arange(n), best] += 0.5
    chosen = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=ACTIONS - 1)
    mean = 1.0 / (1.0 + np.exp(2.0 - 2.0 * utility[np.arange(n), chosen]))
    reward = (rng.random(n) < mean).astype(np.float64)
    offsets = np.arange(0, (n + 1) * ACTIONS, ACTIONS, dtype=np.int32)
    every = pa.DictionaryArray.from_arrays(np.tile(np.arange(ACTIONS, dtype=np.int32), n), ids).dictionary_decode()
    names = pa.StringArray.from_buffers(
        n, pa.py_buffer(np.arange(0, 32 * n + 1, 32, dtype=np.int32)), pa.py_buffer(rng.bytes(16 * n).hex().encode())
    )
    columns = {
        "decision_id": names,
        "time_ms": times,
        "policy_version": pa.array(["g1.0-00000000"] * n),
        "fallback": pa.array([""] * n),
        "mode": pa.array([""] * n),
        "actions": pa.ListArray.from_arrays(offsets, every),
        "excluded": pa.ListArray.from_arrays(offsets, np.zeros(n * ACTIONS, np.bool_)),
        "probabilities": pa.ListArray.from_arrays(offsets, p.ravel()),
        "scores": pa.ListArray.from_arrays(offsets, utility.astype(np.float32).astype(np.float64).ravel()),
        "chosen": chosen.astype(np.int32),
        "propensity": p[np.arange(n), chosen],
        "reward": reward,
        "defaulted": reward == 0.0,
        "outcomes": (reward > 0.0).astype(np.int32),
        "reward_time_ms": times + _DELAY_MS,
        **{f"{CONTEXT}x{j}": np.ascontiguousarray(X[:, j]) for j in range(FEATURES)},
    }
    return pa.table(columns, schema=schema(point))


def _write(directory: Path, table: Any, number: int, date: str) -> Part:
    path = directory / f"decision_point={NAME}" / f"date={date}" / f"part-{number:08d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=_GROUP)
    times = table["time_ms"].to_numpy()
    return Part(
        path=str(path.relative_to(directory)),
        decision_point=NAME,
        date=date,
        rows=len(table),
        min_time_ms=int(times.min()),
        max_time_ms=int(times.max()),
        bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        columns="scale",
    )
