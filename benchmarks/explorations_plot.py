"""Draw docs/images/explorations.png: what the best of ten actions gets, against its gap and what was learned.

python -m benchmarks.explorations_plot docs/images/explorations.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from engine.exploration import (
    CappedIGW,
    EpsilonGreedy,
    Exploration,
    Falcon,
    FastCB,
    LinTS,
    RegCB,
    Softmax,
    SquareCB,
)
from engine.prediction import Prediction

K = 10
TOP = 0.8

CURVES: dict[str, Exploration] = {
    "epsilon_greedy": EpsilonGreedy(),
    "softmax": Softmax(),
    "squarecb": SquareCB(),
    "squarecb, normalised": SquareCB(form="normalised"),
    "fastcb": FastCB(),
    "falcon": Falcon(),
    "capped_igw, tau 8": CappedIGW(tau=8.0),
    "regcb": RegCB(),
    "lints": LinTS(),
}


def best(exploration: Exploration, gap: float, learned: int) -> float:
    """Return what the best action gets when the nine others lie ``gap`` below it."""
    scores = np.full(K, TOP - gap)
    scores[0] = TOP
    # As sure as a mean of what each action has got, with rewards of std 1/2.
    std = np.full(K, 0.5 / np.sqrt(1.0 + learned / K))
    return float(exploration.pmf(Prediction(scores, std=std), learned)[0])


def draw(path: Path) -> None:
    mpl.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    gaps = np.linspace(0.0, 0.5, 200)
    counts = np.unique(np.geomspace(1, 1e6, 120).astype(int))
    for place, (name, exploration) in enumerate(CURVES.items()):
        style = {"color": f"C{place}", "linestyle": "-" if place < 5 else "--", "linewidth": 1.6}
        left.plot(gaps, [best(exploration, float(gap), 1_000) for gap in gaps], label=name, **style)
        right.plot(counts, [best(exploration, 0.1, int(n)) for n in counts], **style)
    left.set(xlabel="gap of the nine others (1,000 learned)", ylabel="probability of the best action", ylim=(0, 1.02))
    right.set(xlabel="feedbacks learned (gap 0.1)", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.axhline(1 / K, color="grey", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle("Ten actions, the best expected to earn 0.8 of the range", fontsize=11)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    draw(parser.parse_args().path)
