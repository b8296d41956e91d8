"""The plot of the bandits benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from benchmarks.bandits import Played

OURS, THEIRS = "#1f5f8b", "#b0683a"


def draw_plot(path: Path, sets: Sequence[str], best: Sequence[Played]) -> None:
    """Draw every policy's mean, and the best of ours beside the best of theirs by set."""
    ours = next(one for one in best if one.contender.peer is None)
    theirs = next(one for one in best if one.contender.peer is not None)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), width_ratios=(1.1, 1.0), layout="constrained")
    shown = list(reversed(best))
    for place, one in enumerate(shown):
        color = OURS if one.contender.peer is None else THEIRS
        by_seed = one.rewards.mean(axis=0)
        left.hlines(place, by_seed.min(), by_seed.max(), color=color, linewidth=2)
        left.plot(one.mean, place, "o", color=color)
        left.annotate(f"{one.mean:.3f}", (by_seed.max(), place), (6, -3), textcoords="offset points", fontsize=8)
    left.set_yticks(range(len(shown)), [one.contender.family for one in shown], fontsize=9)
    left.set_xlabel("mean reward over the sets (line: range over the seeds)")
    left.margins(x=0.12)
    order = np.argsort((ours.rewards - theirs.rewards).mean(axis=1))
    for place, index in enumerate(order):
        difference = (ours.rewards - theirs.rewards)[index]
        mean = difference.mean()
        right.barh(place, mean, color=OURS if mean >= 0.0 else THEIRS, height=0.6)
        right.plot(difference, [place] * len(difference), "|", color="black", markersize=7)
    right.axvline(0.0, color="black", linewidth=0.8)
    right.set_yticks(range(len(order)), [sets[index] for index in order], fontsize=9)
    right.set_xlabel(f"{ours.contender.family} minus {theirs.contender.family} (marks: seeds)")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
