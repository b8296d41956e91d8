"""The plot of a ledger of generations: reward against estimate, what was left to learn from, and how policies moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from engine.errors import LeewayError
from training.generations import GenerationTable


def draw(path: Path, name: str, found: GenerationTable) -> None:
    """Write the plot as a PNG; raises ``LeewayError`` where there is nothing to draw, or the file cannot be written."""
    rows = found.rows
    if not rows:
        raise LeewayError(f"{name}: no generation has acted yet; there is nothing to draw")
    figure = Figure(figsize=(12.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    numbers = np.array([row.generation for row in rows])
    reach = [1.96 * row.error if np.isfinite(row.error) else 0.0 for row in rows]
    left.errorbar(numbers, [row.reward for row in rows], yerr=reach, marker="o", label="earned, 95 %")
    estimates = np.array([row.estimate for row in rows])
    if np.isfinite(estimates).any():
        left.plot(numbers, estimates, "x", label="estimated")
    if found.state.declared is not None:
        left.axvline(found.state.declared, color="red", linestyle=":", label="oscillation declared")
    left.set(title=f"{name}: mean reward", xlabel="generation")
    left.legend()
    for label, values in (
        ("positives", [row.positives for row in rows]),
        ("support", [row.support for row in rows]),
        ("calibration error", [row.calibration for row in rows]),
    ):
        middle.plot(numbers, values, marker="o", label=label)
    middle.set(title="what it left to learn from", xlabel="generation")
    middle.legend()
    for steps in (1, 2):
        apart = [(row.generation, row.distances.get(row.generation - steps, np.nan)) for row in rows]
        right.plot([g for g, _ in apart], [d for _, d in apart], marker="o", label=f"from {steps} before")
    right.set(title="total variation distance of the policies", xlabel="generation")
    right.legend()
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise LeewayError(f"{path}: cannot be written ({error.strerror}); name another file with --plot") from error
