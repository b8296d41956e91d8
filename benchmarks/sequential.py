"""What restarts are worth where the user goes through states: regret of R-BOCPD-UCRL2 on processes that change.

Beside it, on the same processes and the same random numbers, UCRL2 that never restarts and UCRL2 that is told the
change points. Regret is the optimal gain of each segment, summed over the steps, minus the rewards that came.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import goal, main
from engine.sequential import RBOCPDUCRL2, UCRL2, DetectorFactory
from engine.sequential.environments import SwitchingMDP, funnel, retry_ladder, switching
from streaming.pair_detector import PairDetector

HORIZON, SEGMENTS, DELTA = 50_000, 6, 0.05
EVERY = 250  # steps between two points of a curve
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "ucrl2.png"
NAMES = {"ucrl2": "UCRL2, no restarts", "rbocpd_ucrl2": "R-BOCPD-UCRL2", "oracle": "UCRL2, told the changes"}


@dataclass(frozen=True)
class Case:
    """One comparison: where the processes come from, and how wide the confidence sets are."""

    title: str
    width_scale: float
    process: Callable[[np.random.Generator], SwitchingMDP]


def drawn(what: Any) -> Callable[[np.random.Generator], SwitchingMDP]:
    return partial(switching, n_states=4, n_actions=7, horizon=HORIZON, n_segments=SEGMENTS, what=what)


CASES = {
    "both, textbook widths": Case("rewards and transitions change, textbook widths", 1.0, drawn("both")),
    "both, widths x0.1": Case("rewards and transitions change, widths x0.1", 0.1, drawn("both")),
    "rewards, widths x0.1": Case("rewards alone change, widths x0.1", 0.1, drawn("rewards")),
    "transitions, widths x0.1": Case("transitions alone change, widths x0.1", 0.1, drawn("transitions")),
    "funnel, widths x0.1": Case("a shop's funnel, widths x0.1", 0.1, lambda _: funnel(HORIZON // 2)),
    "retry ladder, widths x0.1": Case("retries of a payment, widths x0.1", 0.1, lambda _: retry_ladder(HORIZON // 2)),
}


@dataclass
class Run:
    """One learner's way through one process."""

    curve: NDArray[np.float64]
    restarts: list[int]
    seconds: float


def run(mdp: SwitchingMDP, learner: UCRL2, draws: list[list[float]], told: tuple[int, ...] = ()) -> Run:
    curve, gains = [0.0], mdp.gains.tolist()
    starts = iter([*mdp.starts[1:], HORIZON])
    change = next(starts)
    segment, state, regret = 0, 0, 0.0
    started = time.process_time()
    for t, (u, v) in enumerate(draws):
        if t == change:
            segment, change = segment + 1, next(starts)
            if told:
                learner.restart()
        action = learner.act(state)
        reward, following = mdp.step(segment, state, action, u, v)
        learner.observe(state, action, reward, following)
        regret += gains[segment] - reward
        state = following
        if (t + 1) % EVERY == 0:
            curve.append(regret)
    restarts = learner.restarts if isinstance(learner, RBOCPDUCRL2) else []
    return Run(np.array(curve), restarts, time.process_time() - started)


def delays(mdp: SwitchingMDP, restarts: list[int]) -> list[int]:
    """Return the steps from each change to the first restart before the next change, of those that have one."""
    found = []
    for start, end in zip(mdp.starts[1:], [*mdp.starts[2:], HORIZON], strict=True):
        within = [restart - start for restart in restarts if start < restart <= end]
        found += within[:1]
    return found


def compare(case: Case, seeds: int, detector: DetectorFactory) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    runs: dict[str, list[Run]] = {name: [] for name in NAMES}
    caught, false, late = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        mdp = case.process(rng)
        draws = rng.random((HORIZON, 2)).tolist()
        size, scale = (mdp.n_states, mdp.n_actions), case.width_scale
        plain = partial(UCRL2, *size, delta=DELTA, width_scale=scale, allowed=mdp.allowed)
        runs["ucrl2"].append(run(mdp, plain(), draws))
        runs["oracle"].append(run(mdp, plain(), draws, told=mdp.starts))
        restarted = RBOCPDUCRL2(*size, delta=DELTA, width_scale=scale, allowed=mdp.allowed, detector=detector)
        runs["rbocpd_ucrl2"].append(run(mdp, restarted, draws))
        found = delays(mdp, restarted.restarts)
        caught.append(len(found))
        false.append(len(restarted.restarts) - len(found))
        late += found
    final = {name: [float(r.curve[-1]) for r in each] for name, each in runs.items()}
    means = {name: statistics.fmean(values) for name, values in final.items()}
    return {
        "title": case.title,
        "runs": seeds,
        "regret": {
            name: {
                "mean": round(means[name], 1),
                "standard_error": round(statistics.stdev(values) / seeds**0.5, 1),
                "p5_p50_p95": [round(float(q), 1) for q in np.quantile(values, [0.05, 0.5, 0.95])],
            }
            for name, values in final.items()
        },
        "regret_per_oracle": round(means["rbocpd_ucrl2"] / means["oracle"], 3),
        "regret_per_ucrl2": round(means["rbocpd_ucrl2"] / means["ucrl2"], 3),
        "changes": len(mdp.starts) - 1,
        "caught": {"median": statistics.median(caught), "mean": round(statistics.fmean(caught), 2), "each": caught},
        "other_restarts": {"mean": round(statistics.fmean(false), 2), "each": false},
        "delay_steps": [round(float(q)) for q in np.quantile(late, [0.5, 0.95])] if late else [],
        "cpu_us_per_step": {
            name: round(1e6 * statistics.median(r.seconds for r in each) / HORIZON, 2) for name, each in runs.items()
        },
    }, {name: np.array([r.curve for r in each]) for name, each in runs.items()}


def plot(path: Path, curves: dict[str, dict[str, NDArray[np.float64]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7), sharex=True, layout="constrained")
    steps = np.arange(0, HORIZON + 1, EVERY)
    for axis, (name, case) in zip(axes.flat, curves.items(), strict=True):
        for (key, label), colour in zip(NAMES.items(), ("tab:red", "tab:blue", "tab:gray"), strict=True):
            low, middle, high = np.quantile(case[key], [0.1, 0.5, 0.9], axis=0)
            axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axis.plot(steps, middle, color=colour, label=label)
        axis.set_title(CASES[name].title, fontsize=10)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axes[0, 0].legend(frameon=False, loc="upper left")
    figure.supxlabel("step")
    figure.supylabel(f"cumulative regret: median and 10 to 90 % of {len(next(iter(case.values())))} runs")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def measure(quick: bool) -> dict[str, Any]:
    seeds = 3 if quick else 20
    found, curves = {}, {}
    for name, case in CASES.items():
        found[name], curves[name] = compare(case, seeds, PairDetector)
    if not quick:  # the figure in the documentation is that of a full run
        plot(FIGURE, curves)
    textbook, rewards = found["both, textbook widths"], found["rewards, widths x0.1"]
    ratio, caught = textbook["regret_per_oracle"], rewards["caught"]["median"]
    goals = [
        goal("regret per that of UCRL2 told the changes, textbook widths", ratio, "<= 1.25", ratio <= 1.25),
        goal("changes of rewards alone caught, median of 5, widths x0.1", caught, ">= 4", caught >= 4),
    ]
    return {"horizon": HORIZON, "delta": DELTA, "cases": found, "goals": goals}


if __name__ == "__main__":
    main(__doc__, measure)
