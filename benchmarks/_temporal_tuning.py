"""Choose the rates of the neural models of `benchmarks.temporal`, for each alike, on seeds that are not reported.

python -m benchmarks._temporal_tuning generator|diginetica

The grid is of learning rates and of the deviation of first embeddings for all, and of alpha for ELBO_TDS. The best has
the highest mean AUC over days and seeds; what is printed is to be written into ``benchmarks.temporal.SETTINGS``.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np

from benchmarks import _temporal_contenders as contenders
from benchmarks.temporal import AT_ONCE, FIRST, SOURCES, play, setting_of
from engine.recommender.space import FieldSpace

SEEDS = range(100, 106)
RATES = (1.25e-4, 2.5e-4, 3.5e-4, 5e-4, 1e-3)
DEVIATIONS = (0.01, 0.03, 0.1)
ALPHAS = (0.01, 0.03, 0.1)


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
        for rate, deviation in itertools.product(RATES, DEVIATIONS):
            for alpha in ALPHAS if name == "ELBO_TDS" else (0.0,):
                setting = replace(setting_of(kind), rates={name: rate}, alpha=alpha, embedding_deviation=deviation)
                means = [
                    play(contenders.neural(name, changes, setting, source, space, seed), source)[:, 0].mean()
                    for source, space, seed in zip(sources, spaces, SEEDS, strict=True)
                ]
                found[rate, deviation, alpha] = float(np.mean(means))
                words = f"rate {rate:g}, deviation {deviation:g}, alpha {alpha:g}"
                print(f"{kind} {name}: {words}: {found[rate, deviation, alpha]:.4f}", flush=True)
        rate, deviation, alpha = max(found, key=lambda key: found[key])
        print(f"{kind} {name}: best is rate {rate:g}, deviation {deviation:g}, alpha {alpha:g}", flush=True)


if __name__ == "__main__":
    tune(sys.argv[1])
