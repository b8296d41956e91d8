"""Generations of policies that learn from each other's logs: whether their reward goes up and down in a still world.

The setting that Vangara and Egg describe (*Contextual bandits in payment processing: non-uniform exploration and
supervised learning*, OARS 2025): a policy is frozen while it serves, the next one is an ordinary supervised model
fitted on the logged feedback of the last ``window`` generations, and the actions differ from decision to decision.
World and figures are our own, not theirs. The world is ``leeway simulate --problem logistic``, which never changes:
what goes up and down there does so of itself. Every run is made of the parts that serve and retrain.

The second half plays twenty generations: how often the test declares an oscillation where there is one and where there
is none, and what the damping that follows of itself does to amplitude and reward.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from benchmarks._generation_loop import (
    AUTOMATIC,
    DAMPED_LOOP,
    GREEDY,
    LOOPS,
    UNDAMPED_LOOP,
    Loop,
    Setting,
    play_all,
    swing,
    workers,
)
from benchmarks._harness import goal, main
from engine.config import PolicyConfig
from training.simulation.generation import GenerationFacts, alternation
from training.simulation.report import band

#: The least distance of odd from even generations that counts as an oscillation, and the most that counts as none.
OSCILLATION = 0.01
#: From here on, the damping of a loop whose oscillation was declared at the first two looks is at work.
TAIL = 12
PLOT = Path("docs/images/generations.png")
LOOP_PLOT = Path("docs/images/oscillation.png")

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
QUICK_LOOPS = (UNDAMPED_LOOP, DAMPED_LOOP, "control: independent logs")


def curves(found: list[Loop]) -> dict[str, list[float]]:
    """Return each fact by generation, as the mean over seeds."""
    facts = [[asdict(each) for each in run.facts] for run in found]
    names = [name for name in GenerationFacts.__dataclass_fields__ if name not in ("generation", "decisions")]
    return {
        name: [round(float(np.mean([run[g][name] for run in facts])), 5) for g in range(len(facts[0]))]
        for name in names
    }


def goals(found: dict[str, list[Loop]]) -> list[dict[str, Any]]:
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


def plot(found: dict[str, list[Loop]]) -> None:
    """Draw what the generations after the first, uniform one earned and left; the uniform policy never changes."""
    figure = Figure(figsize=(12.0, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    shown = ("reward", "ess_uniform", "starved", "calibration")
    titles = ("mean reward", "effective sample size for a uniform target", "share of p < 1/(20 K)", "calibration error")
    for axes, fact, title in zip(panels.ravel(), shown, titles, strict=True):
        for name, each in found.items():
            if name != "uniform":
                values = np.array([[getattr(facts, fact) for facts in run.facts] for run in each])
                band(axes, np.arange(1, values.shape[1], dtype=np.float64), values[:, 1:], name, marker="o")
        axes.set(title=title, xlabel="generation")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle("Generations of policies that learn from each other's logs; mean and range over seeds")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def loop_goals(loops: dict[str, list[Loop]]) -> list[dict[str, Any]]:
    """Say whether what oscillates is declared, what does not is not, and what damping does."""
    undamped, damped = loops[UNDAMPED_LOOP], loops[DAMPED_LOOP]
    controls = [loop for name, each in loops.items() if name.startswith("control") for loop in each]
    declared = sum(loop.declared is not None for loop in undamped)
    false = sum(loop.declared is not None for loop in controls)
    bound = int(binom.ppf(0.95, len(controls), AUTOMATIC.level))
    before = np.array([swing(loop.rewards, TAIL) for loop in undamped])
    after = np.array([swing(loop.rewards, TAIL) for loop in damped])
    cut = 1.0 - float(after.mean() / before.mean())
    gain = np.array([np.mean(d.rewards[1:]) - np.mean(u.rewards[1:]) for d, u in zip(damped, undamped, strict=True)])
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    return [
        goal(
            f"undamped: oscillation declared within {len(undamped[0].facts)} generations, seeds of {len(undamped)}",
            declared,
            f">= {len(undamped) - len(undamped) // 5}",
            declared >= len(undamped) - len(undamped) // 5,
        ),
        goal(
            f"controls: false declarations of {len(controls)} at level {AUTOMATIC.level} (95 % point of the binomial)",
            false,
            f"<= {bound}",
            false <= bound,
        ),
        goal(
            f"damped automatically: amplitude cut by, generations {TAIL} on, mean over seeds",
            round(cut, 4),
            ">= 0.5",
            cut >= 0.5,
        ),
        goal(
            "damped automatically: mean reward less the undamped, paired over seeds, lower 95 % bound",
            round(float(gain.mean()) - 1.645 * error, 5),
            ">= 0",
            float(gain.mean()) - 1.645 * error >= 0.0,
        ),
    ]


def told(each: list[Loop]) -> dict[str, Any]:
    """Return the figures of the seeds of one loop."""
    found = [attribution for loop in each if loop.ledger for attribution in loop.ledger.attribution]
    # What never moved, as a fixed gamma, has no correlation.
    names = sorted({attribution.name for attribution in found if attribution.correlation == attribution.correlation})
    return {
        "rewards": [[round(reward, 5) for reward in loop.rewards] for loop in each],
        "declared_after": [loop.declared for loop in each],
        "swing": [round(swing(loop.rewards, TAIL), 5) for loop in each],
        "attribution": {
            name: {
                "correlation": round(float(np.nanmean([a.correlation for a in found if a.name == name])), 4),
                "moved": sum(a.moved for a in found if a.name == name),
            }
            for name in names
        },
    }


def loop_plot(loops: dict[str, list[Loop]]) -> None:
    """Draw the two loops, and how often each is declared as its ledger grows."""
    figure = Figure(figsize=(12.0, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in (UNDAMPED_LOOP, DAMPED_LOOP):
        values = np.array([loop.rewards for loop in loops[name]])
        band(left, np.arange(1, values.shape[1], dtype=np.float64), values[:, 1:], name, marker="o")
    left.set(title="mean reward", xlabel="generation")
    left.legend()
    for name, each in loops.items():
        if name != DAMPED_LOOP:
            numbers = np.arange(1, len(each[0].facts))
            share = [np.mean([loop.declared is not None and loop.declared <= g for loop in each]) for g in numbers]
            right.step(numbers, share, where="post", label=name)
    right.axhline(AUTOMATIC.level, color="grey", linestyle=":", label="stated error rate")
    right.set(title="share of seeds in which an oscillation is declared", xlabel="generation", ylim=(-0.02, 1.02))
    right.legend()
    LOOP_PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(LOOP_PLOT, dpi=100)


def measure(quick: bool) -> dict[str, Any]:
    seeds, generations, decisions = (3, 6, 10_000) if quick else (6, 8, 10_000)
    loop_seeds, loop_generations = (3, 20) if quick else (20, 20)
    chosen = {name: SETTINGS[name] for name in (QUICK if quick else SETTINGS)}
    looped = {name: LOOPS[name] for name in (QUICK_LOOPS if quick else LOOPS)}
    with workers() as pool:
        found = play_all(pool, chosen, seeds, generations, decisions, judged=False)
        loops = play_all(pool, looped, loop_seeds, loop_generations, decisions, judged=True)
    if not quick:
        plot(found)
        loop_plot(loops)
    return {
        "seeds": seeds,
        "decisions_per_generation": decisions,
        "odd_less_even": {name: [round(alternation(run.rewards), 5) for run in each] for name, each in found.items()},
        "by_generation": {name: curves(each) for name, each in found.items()},
        "loops": {name: told(each) for name, each in loops.items()},
        "goals": goals(found) + loop_goals(loops),
    }


if __name__ == "__main__":
    main(__doc__, measure)
