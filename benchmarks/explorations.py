"""CPU time of one probability vector, by exploration and number of actions.

Limits, not peers: a vector of ten actions in a few microseconds beside the milliseconds of a decision, and a spanner of
100,000 actions in 5 ms. Times are CPU time of the calling thread, medians of rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: the thread's CPU time is to hold all the work

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import goal, main
from engine.exploration import (
    Bag,
    Cap,
    CappedIGW,
    Cover,
    EpsilonGreedy,
    Exploration,
    Falcon,
    FastCB,
    First,
    Floor,
    LinTS,
    LinUCB,
    RegCB,
    SmoothIGW,
    Softmax,
    SpannerIGW,
    SquareCB,
    Uniform,
)
from engine.prediction import Prediction

COUNTS = (2, 10, 100, 1_000, 100_000)
WIDTH = 32
MEMBERS = 10
LEARNED = 1_000
#: Of one action's vector at K = 10, in microseconds: they touch each action once or twice.
COMMON_US = 5.0
COMMON = ("uniform", "epsilon_greedy", "softmax", "squarecb", "fastcb", "falcon", "floor mix")
SPANNER_MS = 5.0

EXPLORATIONS: dict[str, Exploration] = {
    "uniform": Uniform(),
    "first": First(),
    "epsilon_greedy": EpsilonGreedy(),
    "softmax": Softmax(),
    "squarecb": SquareCB(),
    "squarecb normalised": SquareCB(form="normalised"),
    "fastcb": FastCB(),
    "falcon": Falcon(),
    "regcb": RegCB(),
    "linucb": LinUCB(),
    "lints": LinTS(),
    "bag": Bag(),
    "cover": Cover(),
    "smooth_igw": SmoothIGW(),
    "capped_igw": CappedIGW(),
    "spanner_igw": SpannerIGW(),
    "floor mix": Floor(SquareCB()),
    "floor project": Floor(SquareCB(), method="project"),
    "cap": Cap(SquareCB()),
}


def prediction(rng: np.random.Generator, count: int, rows: NDArray[np.float32]) -> Prediction:
    return Prediction(
        rng.random(count), rng.uniform(0.02, 0.1, size=count), rng.random((MEMBERS, count)), rows.astype(np.float32)
    )


def embeddings(rng: np.random.Generator, count: int, kind: str) -> NDArray[np.float32]:
    """Rows that are round (independent normals), flat (a spectrum over two decades) or in fifty clusters."""
    rows = rng.normal(size=(count, WIDTH))
    if kind == "flat":
        rows = rows * 0.01 ** (np.arange(WIDTH) / WIDTH) @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    elif kind == "clustered":
        rows = rng.normal(size=(50, WIDTH))[rng.integers(50, size=count)] + 0.1 * rows
    return rows.astype(np.float32)


def microseconds(exploration: Exploration, prediction: Prediction, rounds: int, seconds: float) -> float:
    exploration.pmf(prediction, LEARNED)
    start = time.thread_time()
    exploration.pmf(prediction, LEARNED)
    calls = max(1, int(seconds / max(time.thread_time() - start, 1e-6)))
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            exploration.pmf(prediction, LEARNED)
        times.append((time.thread_time() - start) / calls)
    return 1e6 * statistics.median(times)


def measure(quick: bool) -> dict[str, Any]:
    rounds, seconds = (3, 0.01) if quick else (9, 0.05)
    rng = np.random.default_rng(0)
    pmf_us: dict[str, dict[int, float]] = {name: {} for name in EXPLORATIONS}
    for count in COUNTS:
        given = prediction(rng, count, embeddings(rng, count, "round"))
        for name, exploration in EXPLORATIONS.items():
            pmf_us[name][count] = round(microseconds(exploration, given, rounds, seconds), 2)
    spanner_ms = {}
    for kind in ("round", "flat", "clustered"):
        rows = embeddings(rng, COUNTS[-1], kind)
        for scale in (0.0, 10.0):
            given = prediction(rng, len(rows), rows)
            time_us = microseconds(SpannerIGW(gamma_scale=scale), given, rounds, seconds)
            spanner_ms[f"{kind}, gamma {scale * LEARNED**0.5:.0f}"] = round(time_us / 1e3, 3)
    common = max(pmf_us[name][10] for name in COMMON)
    return {
        "pmf_us": pmf_us,
        "spanner_100000x32_ms": spanner_ms,
        "goals": [
            goal("pmf_us_of_10_actions_common", common, f"<= {COMMON_US}", common <= COMMON_US),
            *(
                goal(f"spanner_igw_100000x32_ms ({kind})", value, f"< {SPANNER_MS}", value < SPANNER_MS)
                for kind, value in spanner_ms.items()
            ),
        ],
    }


if __name__ == "__main__":
    main(__doc__, measure)
