"""How long boosted trees take for the rows of one request: our own walk beside LightGBM's ``Booster.predict``.

The trees are those of `benchmarks.serving`, one thread each, CPU time, in turns. That the numbers are the same to the
bit is checked first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np

from benchmarks._harness import goal, main
from benchmarks._serving_workload import Shape, forest

SHAPE = Shape()
REQUESTS = 64


def cost_us(predict: Callable[[int], object], calls: int) -> float:
    """Return the CPU microseconds of one request."""
    began = time.process_time()
    for number in range(calls):
        predict(number % REQUESTS)
    return 1e6 * (time.process_time() - began) / calls


def measure(quick: bool) -> dict[str, Any]:
    width = SHAPE.context + SHAPE.features
    oracle = forest(width, SHAPE.actions)
    booster = lightgbm.Booster(model_str=oracle.text)
    X = np.random.default_rng(0).normal(size=(REQUESTS, SHAPE.actions, width)).astype(np.float32)
    codes = np.arange(1, SHAPE.actions + 1)
    rows = [np.column_stack([its, codes.astype(np.float32)]) for its in X]

    def ours(number: int) -> object:
        return oracle.predict(X[number], codes)

    def theirs(number: int) -> object:
        return booster.predict(rows[number], num_threads=1)

    if any(np.asarray(ours(k)).tobytes() != np.asarray(theirs(k)).tobytes() for k in range(REQUESTS)):
        raise RuntimeError("the walk gives other numbers than LightGBM")
    turns = [(cost_us(ours, 640), cost_us(theirs, 640)) for _ in range(3 if quick else 15)]
    mine, its = (statistics.median(one) for one in zip(*turns, strict=True))
    ratio = statistics.median(other / one for one, other in turns)
    return {
        "rows": SHAPE.actions,
        "us": {"ours": mine, "Booster.predict": its},
        "times_as_fast": ratio,
        "goals": [goal("times as fast as Booster.predict on the rows of a request", ratio, "> 1", ratio > 1.0)],
    }


if __name__ == "__main__":
    main(__doc__, measure)
