"""Generations of policies that learn from each other's logs: whether their reward goes up and down in a still world.

The setting that Vangara and Egg describe (*Contextual bandits in payment processing: non-uniform exploration and
supervised learning*, OARS 2025): a policy is frozen while it serves, the next one is an ordinary supervised model
fitted on the logged feedback of the last ``window`` generations, and the actions differ from decision to decision.
World and figures are our own, not theirs. The world is ``leeway simulate --problem logistic``, which never changes:
what goes up and down there does so of itself. Every run is made of the parts that serve and retrain.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks._harness import goal, main
from engine.config import DecisionPoint, PolicyConfig
from training.config import LightGBMConfig
from training.simulation.generation import GenerationFacts, alternation
from training.simulation.generator import PROBLEMS
from training.simulation.report import band
from training.simulation.run import Run, Settings, run_world
from training.simulation.student import fit_trees
from training.simulation.world import Offer

WORLD = PROBLEMS["logistic"]
TREES = fit_trees(LightGBMConfig(trees=60, leaves=15, min_child=20))
GREEDY = {"kind": "squarecb", "gamma_scale": 1_000.0, "gamma_exponent": 0.0}
#: The least distance of odd from even generations that counts as an oscillation, and the most that counts as none.
OSCILLATION = 0.01
PLOT = Path("docs/images/generations.png")


@dataclass(frozen=True)
class Setting:
    """A policy over generations: exploration, training window, share of uniform exploration, oracle."""

    exploration: dict[str, Any]
    window: int | None
    share: float = 0.0


SETTINGS = {
    "uniform": Setting({"kind": "uniform"}, 1),
    "gamma 100, W 1": Setting({"kind": "squarecb", "gamma_scale": 100.0, "gamma_exponent": 0.0}, 1),
    "gamma 1000, W 1": Setting(GREEDY, 1),
    "gamma 1000, W 3": Setting(GREEDY, 3),
    "gamma 1000, 10 % floor, W 1": Setting(GREEDY, 1, 0.1),
    "epsilon-greedy 0.1, W 1": Setting({"kind": "epsilon_greedy", "epsilon": 0.1}, 1),
    # What a decision point has where its file says nothing: gamma grows with what was learned, nothing is forgotten.
    "default": Setting(PolicyConfig().exploration.model_dump(mode="json"), None),
}
QUICK = ("gamma 1000, W 1", "gamma 1000, 10 % floor, W 1", "default")


def runs(setting: Setting, seeds: int, generations: int, decisions: int) -> list[Run]:
    policy = PolicyConfig.model_validate({"exploration": setting.exploration})
    point: DecisionPoint = WORLD.point.model_copy(update={"policy": policy})
    settings = Settings(
        decisions=generations * decisions,
        generation=decisions,
        window=setting.window,
        share=setting.share,
        offer=Offer(0.7),
        fit=TREES,
    )
    return [run_world(WORLD, point, settings, seed) for seed in range(seeds)]


def curves(found: list[Run]) -> dict[str, list[float]]:
    """Return each fact by generation, as the mean over seeds."""
    facts = [[asdict(each) for each in run.generations] for run in found]
    names = [name for name in GenerationFacts.__dataclass_fields__ if name not in ("generation", "decisions")]
    return {
        name: [round(float(np.mean([run[g][name] for run in facts])), 5) for g in range(len(facts[0]))]
        for name in names
    }


def goals(found: dict[str, list[Run]]) -> list[dict[str, Any]]:
    stated = []
    apart = {name: [alternation(run.rewards) for run in each] for name, each in found.items()}
    seeds = len(next(iter(found.values())))
    least = seeds - 1 if seeds > 1 else 1
    swings = sum(value > OSCILLATION for value in apart["gamma 1000, W 1"])
    stated.append(
        goal(
            f"gamma 1000, W 1: seeds of {seeds} in which odd generations earn more than even ones by over 0.01",
            swings,
            f">= {least}",
            swings >= least,
        )
    )
    for name in ("epsilon-greedy 0.1, W 1", "gamma 1000, 10 % floor, W 1", "default"):
        if name in apart:
            mean = float(np.mean(apart[name]))
            stated.append(goal(f"{name}: |odd - even|", round(mean, 5), "|.| < 0.01", abs(mean) < OSCILLATION))
    last, first = (float(np.mean([run.rewards[g] for run in found["default"]])) for g in (-1, 1))
    stated.append(
        goal(
            "default: reward of the last generation less that of generation 1",
            round(last - first, 5),
            "> 0",
            last > first,
        )
    )
    return stated


def plot(found: dict[str, list[Run]]) -> None:
    """Draw what the generations after the first, uniform one earned and left; the uniform policy never changes."""
    figure = Figure(figsize=(12.0, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    shown = ("reward", "ess_uniform", "starved", "calibration")
    titles = ("mean reward", "effective sample size for a uniform target", "share of p < 1/(20 K)", "calibration error")
    for axes, fact, title in zip(panels.ravel(), shown, titles, strict=True):
        for name, each in found.items():
            if name != "uniform":
                values = np.array([[getattr(facts, fact) for facts in run.generations] for run in each])
                band(axes, np.arange(1, values.shape[1], dtype=np.float64), values[:, 1:], name, marker="o")
        axes.set(title=title, xlabel="generation")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle("Generations of policies that learn from each other's logs; mean and range over seeds")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def measure(quick: bool) -> dict[str, Any]:
    seeds, generations, decisions = (3, 6, 10_000) if quick else (6, 8, 10_000)
    chosen = {name: SETTINGS[name] for name in (QUICK if quick else SETTINGS)}
    found = {name: runs(setting, seeds, generations, decisions) for name, setting in chosen.items()}
    if not quick:
        plot(found)
    return {
        "seeds": seeds,
        "decisions_per_generation": decisions,
        "odd_less_even": {name: [round(alternation(run.rewards), 5) for run in each] for name, each in found.items()},
        "by_generation": {name: curves(each) for name, each in found.items()},
        "goals": goals(found),
    }


if __name__ == "__main__":
    main(__doc__, measure)
