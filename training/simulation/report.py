"""What a simulation leaves behind: the progressive series as CSV, the generations as CSV, a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.simulation.generation import GenerationFacts
from training.simulation.run import Run
from training.simulation.world import Float64, Int64

#: Most points of a series.
POINTS = 200


def checkpoints(count: int) -> Int64:
    """Return the numbers of decisions after which the series has a point."""
    return np.unique(np.linspace(0, count, min(POINTS, count) + 1).round().astype(np.int64))[1:]


def write_series(path: Path, runs: Sequence[Run]) -> None:
    """Write the mean reward of all decisions so far, and of those since the last point, for each seed."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "decisions", "generation", "reward_so_far", "reward_since", "shortfall_so_far"])
        for run in runs:
            points = checkpoints(len(run.value))
            ends = points - 1
            total, short = np.cumsum(run.value), np.cumsum(run.shortfall)
            since = np.diff(total[ends], prepend=0.0) / np.diff(points, prepend=0)
            for point, end, recent in zip(points.tolist(), ends.tolist(), since.tolist(), strict=True):
                so_far = float(short[end] / point)
                writer.writerow(
                    [
                        run.seed,
                        point,
                        int(run.generation[end]),
                        repr(float(total[end] / point)),
                        repr(recent),
                        "" if np.isnan(so_far) else repr(so_far),
                    ]
                )


def write_generations(path: Path, runs: Sequence[Run]) -> None:
    """Write the facts of each generation and seed."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", *(f.name for f in fields(GenerationFacts))])
        for run in runs:
            for facts in run.generations:
                writer.writerow([run.seed, *asdict(facts).values()])


def draw_series(runs: Sequence[Run], title: str) -> Figure:
    """Draw the mean reward so far; the band goes from the lowest to the highest seed."""
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    points = checkpoints(min(len(run.value) for run in runs))
    so_far = np.array([np.cumsum(run.value)[points - 1] / points for run in runs])
    band(axes, points.astype(np.float64), so_far, "mean reward so far")
    axes.set(title=title, xlabel="decisions", ylabel="reward")
    if runs[0].generations:
        ends = np.cumsum([facts.decisions for facts in runs[0].generations]).astype(np.float64)
        each = np.array([run.rewards for run in runs if len(run.rewards) == len(ends)])
        band(axes, ends, each, "of the generation", marker="o")
    axes.legend()
    return figure


def band(axes: Axes, x: Float64, values: Float64, label: str, marker: str = "") -> None:
    """Draw the mean over the first axis of ``values`` with its least and greatest."""
    [line] = axes.plot(x, values.mean(axis=0), marker=marker, label=label)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), alpha=0.2, color=line.get_color())
