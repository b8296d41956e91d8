"""How regret grows on problems that the oracle can learn: SquareCB and FALCON, and FastCB where little can be lost.

Theory says that regret grows like the square root of the rounds, times logarithms. The exponent is the slope of log
regret on log rounds, from 1,000 rounds to the end; its interval is Student's over the seeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import t, ttest_rel

from benchmarks._harness import goal, main
from benchmarks._regret_world import exponent, linear_world, regret, small_loss_world
from engine.exploration import Exploration, Falcon, FastCB, SquareCB

START = 1_000
MOST = 0.6
#: Both with gamma = 10 sqrt(n): n is what was learned, up to the beginning of the epoch for FALCON.
EXPLORATIONS: dict[str, Exploration] = {"SquareCB": SquareCB(10.0), "FALCON": Falcon(constant=10.0, complexity=5.0)}
MAKE: dict[str, Callable[[float], Exploration]] = {"SquareCB": SquareCB, "FastCB": partial(FastCB, 1.0)}
SCALES = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
#: Seeds that scales are chosen on, apart from those that are judged.
TUNING = range(1_000, 1_004)


def final(exploration: Exploration, rounds: int, seed: int) -> float:
    """Return the regret of a whole run where little can be lost."""
    return float(regret(small_loss_world(rounds, seed), exploration)[-1])


def growth(exploration: Exploration, rounds: int, seed: int) -> tuple[float, float]:
    """Return exponent and final regret of a run in the linear world."""
    curve = regret(linear_world(rounds, seed), exploration)
    return exponent(curve, START), float(curve[-1])


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval."""
    mean, half = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    half *= float(t.ppf(0.975, len(values) - 1))
    return round(mean, 3), round(mean - half, 3), round(mean + half, 3)


def measure(quick: bool) -> dict[str, Any]:
    """Run all worlds; judge the goals."""
    rounds, seeds = (20_000, range(5)) if quick else (100_000, range(10))
    small_rounds = 3_000 if quick else 20_000
    goals: list[dict[str, Any]] = []
    exponents: dict[str, Any] = {}
    small: dict[str, Any] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name, exploration in EXPLORATIONS.items():
            runs = list(pool.map(partial(growth, exploration, rounds), seeds))
            mean, low, high = interval([slope for slope, _ in runs])
            exponents[name] = {
                "exponent": mean,
                "interval": [low, high],
                "final_regret": interval([last for _, last in runs])[0],
            }
            # The interval's upper end, so that luck does not pass: too wide with the seeds of a quick run to judge.
            if not quick:
                goals.append(
                    goal(f"{name}: exponent of regret, upper end of its interval", high, f"<= {MOST}", high <= MOST)
                )
        finals: dict[str, list[float]] = {}
        for name, build in MAKE.items():
            tuned = {
                scale: float(np.mean(list(pool.map(partial(final, build(scale), small_rounds), TUNING))))
                for scale in SCALES
            }
            best = min(tuned, key=tuned.__getitem__)
            finals[name] = list(pool.map(partial(final, build(best), small_rounds), seeds))
            small[name] = {
                "best_gamma_scale": best,
                "regret": interval(finals[name])[0],
                "regret_by_scale_on_tuning_seeds": {f"{scale:g}": round(value, 1) for scale, value in tuned.items()},
            }
    p = float(ttest_rel(finals["FastCB"], finals["SquareCB"], alternative="less").pvalue)
    ratio = float(np.mean(finals["FastCB"]) / np.mean(finals["SquareCB"]))
    name = f"FastCB's regret over SquareCB's where the best loss is 0.01, both tuned (p = {p:.1g})"
    goals.append(goal(name, round(ratio, 3), "< 1, p < 0.05", ratio < 1.0 and p < 0.05))
    return {
        "rounds": rounds,
        "seeds": len(seeds),
        "linear_world": exponents,
        "small_loss_world": {"rounds": small_rounds, **small},
        "goals": goals,
    }


if __name__ == "__main__":
    main(__doc__, measure)
