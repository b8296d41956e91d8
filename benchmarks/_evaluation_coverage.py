"""How often intervals have the truth inside: at one look, and at every look of a log that grows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._evaluation_world import WORLDS, World
from benchmarks._harness import goal
from training.evaluation import ESTIMATORS, INTERVALS, Support
from training.evaluation.confidence_sequence import ConfidenceSequence
from training.evaluation.support import support

LEVEL = 0.95
#: Self-normalised terms have no range of their own, and only the first two kinds of intervals go without.
ESTIMATED = {"ips": INTERVALS, "dr": INTERVALS, "snips": ("student", "bootstrap")}
#: Three that may be looked at every day, and one that may not.
LOOKED_AT = ("student", "betting", "predictable_plug_in", "gamma_mixture")
RANGE = (0.0, 1.0)


def least(seeds: int) -> float:
    """Return the level less three standard errors of so many runs."""
    return LEVEL - 3.0 * float(np.sqrt(LEVEL * (1.0 - LEVEL) / seeds))


def known(world: World, estimator: str) -> Support:
    """Return the range of the terms as whoever runs the logging policy knows it: for every kind of context."""
    sample = world.sample(1, 0)
    every = type(sample)(np.arange(len(world.mean)), np.zeros(len(world.mean), np.int64), np.zeros(len(world.mean)))
    return Support(*support(ESTIMATORS[estimator], world.rows(every), RANGE), *RANGE)


def at_one_look(seeds: int, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, world in WORLDS.items():
        ranges = {estimator: known(world, estimator) for estimator in ESTIMATED}
        counts = {f"{e}, {m}": [0, 0.0] for e, methods in ESTIMATED.items() for m in methods}
        for seed in range(seeds):
            logged = world.rows(world.sample(rows, seed))
            for estimator, methods in ESTIMATED.items():
                values = ESTIMATORS[estimator].contributions(logged)
                for method in methods:
                    interval = INTERVALS[method].interval(values, (1.0 + LEVEL) / 2.0, ranges[estimator])
                    count = counts[f"{estimator}, {method}"]
                    count[0] += interval.low <= world.truth <= interval.high
                    count[1] += (interval.high - interval.low) / seeds
        found[name] = {
            "max_weight": round(world.max_weight, 1),
            "intervals": {
                key: {"coverage": count / seeds, "mean_width": round(width, 4)}
                for key, (count, width) in counts.items()
            },
        }
    return found


def at_every_look(seeds: int, rows: int, looks: int) -> dict[str, Any]:
    """Return in which share of logs the truth was inside at all times.

    The bounds of two sequences are the best of all times so far, so that the last one tells of every row; the others
    are looked at so many times.
    """
    ends = np.linspace(0, rows, looks + 1).astype(int)[1:]
    found: dict[str, Any] = {}
    for name, world in WORLDS.items():
        ranges = {estimator: known(world, estimator) for estimator in ("ips", "dr")}
        inside = {f"{e}, {m}": 0 for e in ranges for m in LOOKED_AT}
        for seed in range(seeds):
            logged = world.rows(world.sample(rows, 10_000 + seed))
            for key in inside:
                estimator, method = key.split(", ")
                values = ESTIMATORS[estimator].contributions(logged)
                running = method in ("betting", "predictable_plug_in")
                each = (
                    INTERVALS[method].interval(values[:end], (1.0 + LEVEL) / 2.0, ranges[estimator])
                    for end in (ends[-1:] if running else ends)
                )
                inside[key] += all(interval.low <= world.truth <= interval.high for interval in each)
        found[name] = {key: {"coverage": count / seeds} for key, count in inside.items()}
    return found


def goals(once: dict[str, Any], always: dict[str, Any], seeds: int) -> list[dict[str, Any]]:
    bound = least(seeds)
    stated = []
    for name, of_world in once.items():
        for key, facts in of_world["intervals"].items():
            value = facts["coverage"]
            stated.append(goal(f"coverage of 95 %, {name}: {key}", value, f">= {bound:.4f}", value >= bound))
    for name, of_world in always.items():
        for key, facts in of_world.items():
            if isinstance(INTERVALS[key.split(", ")[1]], ConfidenceSequence):
                value = facts["coverage"]
                stated.append(
                    goal(f"coverage of 95 % at all times, {name}: {key}", value, f">= {bound:.4f}", value >= bound)
                )
    return stated
