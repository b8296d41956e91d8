"""The picture of `benchmarks.temporal`: each day's AUC beside that of ERM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray


def draw_plot(
    path: Path, everything: Mapping[str, tuple[Mapping[str, NDArray[np.float64]], list[int]]], first: int
) -> None:
    """Draw, for each source, the mean difference to ERM by day; days of a shift are shaded."""
    mpl.use("Agg")
    figure, axes = plt.subplots(1, len(everything), figsize=(13, 4.5), layout="constrained")
    for axis, (kind, (results, shifted)) in zip(axes, everything.items(), strict=True):
        erm = results["ERM"][:, :, 0]
        days = np.arange(erm.shape[1]) + first
        for day in shifted:
            axis.axvspan(first + day - 0.5, first + day + 0.5, color="0.92", zorder=0)
        for name, found in results.items():
            if name in ("ERM", "popularity", "logistic"):
                continue
            difference = found[:, :, 0] - erm
            line = axis.plot(days, difference.mean(axis=0), label=name, linewidth=2.2 if name == "ELBO_TDS" else 1.1)
            if name == "ELBO_TDS":
                error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
                low, high = difference.mean(axis=0) - error, difference.mean(axis=0) + error
                axis.fill_between(days, low, high, color=line[0].get_color(), alpha=0.2, linewidth=0)
        axis.axhline(0.0, color="black", linewidth=0.8)
        axis.set(title=kind, xlabel="day", ylabel="next-day AUC minus ERM's")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
