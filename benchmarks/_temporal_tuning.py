"""Choose the rates of the neural models of `benchmarks.temporal`, for each alike, on seeds that are not reported.

python -m benchmarks._temporal_tuning generator|diginetica

The grid is of learning rates for all, and of alpha for ELBO_TDS. The best has the highest mean AUC over days and seeds;
what is printed is to be written into ``benchmarks.temporal.SETTINGS``.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import _temporal_contenders as contenders
from benchmarks.temporal import AT_ONCE, FIRST, SOURCES, play
from engine.recommender.space import FieldSpace

SEEDS = (100, 101)
RATES = (3e-4, 1e-3, 3e-3)
ALPHAS = (0.01, 0.1)


def tune(kind: str) -> None:
    sources = [SOURCES[kind](seed, False) for seed in SEEDS]
    spaces = [
        FieldSpace(source.user, source.item).fitted(
            chunk for day in list(source.days())[:FIRST] for chunk in source.read(day, AT_ONCE)
        )
        for source in sources
    ]
    for name, changes in contenders.OBJECTIVES.items():
        found = {}
        for rate in RATES:
            for alpha in ALPHAS if name == "ELBO_TDS" else (0.0,):
                setting = contenders.Setting({name: rate}, alpha)
                means = [
                    play(contenders.neural(name, changes, setting, source, space, seed), source)[:, 0].mean()
                    for source, space, seed in zip(sources, spaces, SEEDS, strict=True)
                ]
                found[rate, alpha] = float(np.mean(means))
                print(f"{kind} {name}: rate {rate:g}, alpha {alpha:g}: {found[rate, alpha]:.4f}", flush=True)
        best = max(found, key=lambda key: found[key])
        print(f"{kind} {name}: best is rate {best[0]:g}, alpha {best[1]:g}", flush=True)


if __name__ == "__main__":
    tune(sys.argv[1])
