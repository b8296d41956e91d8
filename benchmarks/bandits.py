"""Leeway's policies and the field's on real data sets: progressive reward of one pass, and decisions a CPU second.

Supervised data become bandits: a policy is told the reward of the action that it chose, 1 where it is the right class
and 0 elsewhere, and of no other. Every policy sees the same rows in the same orders, one order for each seed, and keeps
one configuration over all sets: the one of its grid that is best on average over them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from sklearn.datasets import load_digits

from benchmarks import _bandit_peer, _bandit_speed
from benchmarks._bandit_contenders import FLOOR, Contender, leeway, peers
from benchmarks._bandit_plot import draw_plot
from benchmarks._harness import goal, main

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LEEWAY_BENCHMARK_DATA") or ROOT.parent / "shared" / "data")
PLOT = ROOT / "docs" / "images" / "bandits.png"
SETS = [
    "car",
    "covtype10k",
    "digits",
    "elec2",
    "letter",
    "nursery",
    "pendigits",
    "soybean",
    "spambase",
    "vehicle",
    "wine",
]
#: Without them the libraries below NumPy would take a second core and report its time as ours, or a peer's.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class Played:
    """A contender and its rewards, shape (sets, seeds)."""

    contender: Contender
    rewards: NDArray[np.float64]
    least: float
    rows_per_cpu_second: float

    @property
    def mean(self) -> float:
        return float(self.rewards.mean())


def prepare(folder: Path) -> None:
    """Write every set in one form, that the peers' environments can read too."""
    for name in SETS:
        if name == "digits":
            # Scaled as the columns of the other sets are: mean 0, standard deviation 1.
            X, y = load_digits(return_X_y=True)
            std = X.std(axis=0)
            X = ((X - X.mean(axis=0)) / np.where(std > 0.0, std, 1.0)).astype(np.float32)
            Y = np.eye(10, dtype=np.uint8)[y]
        else:
            with np.load(
                DATA / ("drift" if name == "elec2" else "bandits") / f"{name}.npz", allow_pickle=False
            ) as data:
                X, Y = data["X"], data["Y"]
        np.savez(folder / f"{name}.npz", X=X, Y=Y)


def play(
    folder: Path, contender: Contender, sets: list[str], seeds: list[int], rows: int | None
) -> list[dict[str, Any]]:
    """Let a contender play in a process of its own; return a line for each (set, seed)."""
    program, interpreter = "benchmarks._bandit_service", sys.executable
    if contender.peer is not None:
        found, why = _bandit_peer.python(contender.peer)
        if found is None:
            raise RuntimeError(why)
        program, interpreter = contender.peer.program, found
    configuration = contender.configuration
    job = {"folder": str(folder), "sets": sets, "seeds": seeds, "rows": rows, "configuration": configuration}
    done = subprocess.run(
        [interpreter, "-m", program],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(f"{contender.family}, {contender.name}: {done.stderr[-2_000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def play_all(folder: Path, contender: Contender, seeds: list[int]) -> Played:
    """Let a contender play every set with every seed."""
    lines = play(folder, contender, SETS, seeds, None)
    rewards = np.array([line["reward"] for line in lines]).reshape(len(SETS), len(seeds))
    least = min((line.get("least_probability_times_k", 0.0) for line in lines), default=0.0)
    rate = sum(line["rows"] for line in lines) / sum(line["cpu_seconds"] for line in lines)
    print(f"{rewards.mean():.4f} {contender.family}, {contender.name}", file=sys.stderr, flush=True)
    return Played(contender, rewards, least, rate)


def best_of_each(played: Sequence[Played]) -> list[Played]:
    """Return the best configuration of each family, the best family first."""
    families: dict[str, Played] = {}
    for one in played:
        best = families.setdefault(one.contender.family, one)
        if one.mean > best.mean:
            families[one.contender.family] = one
    return sorted(families.values(), key=lambda one: -one.mean)


def worse_on(ours: Played, theirs: Played) -> list[str]:
    """Return the sets on which ours is worse: paired t-test over seeds, one-sided, 5 %."""
    worse = []
    for name, a, b in zip(SETS, ours.rewards, theirs.rewards, strict=True):
        difference = a - b
        # All seeds alike leave the test without a variance.
        certain = np.ptp(difference) == 0.0 and difference[0] < 0.0
        if certain or (np.ptp(difference) > 0.0 and ttest_rel(a, b, alternative="less").pvalue < 0.05):
            worse.append(name)
    return worse


def table(best: Sequence[Played]) -> str:
    """Return the rewards as a table in Markdown."""
    lines = [f"| policy | {' | '.join(SETS)} | mean | decisions / CPU s |", "|---" * (len(SETS) + 3) + "|"]
    for one in best:
        cells = " | ".join(f"{value:.3f}" for value in one.rewards.mean(axis=1))
        name = f"{one.contender.family} ({one.contender.name.strip()})"
        lines.append(f"| {name} | {cells} | **{one.mean:.4f}** | {one.rows_per_cpu_second:,.0f} |")
    return "\n".join(lines)


def measure(quick: bool) -> dict[str, Any]:
    """Play everything, judge the goals."""
    seeds = [0, 1, 2] if quick else [0, 1, 2, 3, 4]
    missing: dict[str, str] = {}
    field = []
    for contender in peers(quick):
        assert contender.peer is not None
        requirement = contender.peer.requirement
        if requirement not in missing and (why := _bandit_peer.python(contender.peer)[1]):
            missing[requirement] = why
        if requirement not in missing:
            field.append(contender)
    if quick:
        missing[_bandit_peer.CONTEXTUALBANDITS.requirement] = "left out of a quick run"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leeway-benchmark-") as name:
        folder = Path(name)
        prepare(folder)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            everybody = list(pool.map(lambda one: play_all(folder, one, seeds), [*leeway(quick), *field]))

        def turn(contender: Contender, sets: list[str], seeds: list[int], rows: int | None) -> list[dict[str, Any]]:
            return play(folder, contender, sets, seeds, rows)

        rounds = 3 if quick else 5
        speed: dict[str, Any] = {}
        if _bandit_peer.VOWPAL_WABBIT.requirement not in missing:
            speed["first order / VW"] = _bandit_speed.compare(turn, _bandit_speed.FIRST, _bandit_speed.VW, rounds)
        if _bandit_peer.OBP.requirement not in missing:
            for ours in (_bandit_speed.SECOND, _bandit_speed.FOURIER):
                speed[f"{ours.family} / obp LinUCB"] = _bandit_speed.compare(turn, ours, _bandit_speed.LINUCB, rounds)
    best = best_of_each(everybody)
    if not quick:
        draw_plot(PLOT, SETS, best)
    return {
        "data": "11 sets, one pass, progressive mean reward, seeds " + ", ".join(map(str, seeds)),
        "floor": f"p >= {FLOOR} / K",
        "wall_seconds": round(time.monotonic() - began),
        "table": table(best).splitlines(),
        "policies": [
            {
                "family": one.contender.family,
                "configuration": one.contender.name,
                "mean": round(one.mean, 4),
                "sets": dict(zip(SETS, one.rewards.mean(axis=1).round(4).tolist(), strict=True)),
                "sd_over_seeds": dict(zip(SETS, one.rewards.std(axis=1, ddof=1).round(4).tolist(), strict=True)),
                "decisions_per_cpu_second": round(one.rows_per_cpu_second),
            }
            for one in sorted(everybody, key=lambda one: -one.mean)
        ],
        "speed_one_at_a_time": speed,
        "not_measured": missing,
        "goals": goals(best, speed),
    }


def goals(best: Sequence[Played], speed: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge what was measured."""
    ours = [one for one in best if one.contender.peer is None]
    theirs = [one for one in best if one.contender.peer is not None]
    supported = [one for one in ours if one.least >= FLOOR * (1.0 - 1e-9)]
    top = supported[0].mean if supported else 0.0
    rival = theirs[0] if theirs else None
    found = [goal("best policy with full support, mean reward", round(top, 4), ">= 0.7815", top >= 0.7815)]
    if rival is None:
        found.append(goal("best peer, mean reward", 0.0, "a peer was measured", False))
    else:
        margin = round(top - rival.mean, 4)
        name = f"margin over the best peer ({rival.contender.family}, {rival.mean:.4f})"
        found.append(goal(name, margin, "> 0", top > rival.mean))
        worse = worse_on(supported[0], rival) if supported else SETS
        name = f"sets on which it is worse than {rival.contender.family} ({', '.join(worse) or 'none'})"
        found.append(goal(name, len(worse), "<= 2 of 11", len(worse) <= 2))
    squarecb = next((one.mean for one in theirs if one.contender.family == "VW squarecb"), None)
    for family in ("SquareCB", "FastCB", "FALCON"):
        mean = next(one.mean for one in ours if one.contender.family == f"Leeway {family}")
        bound = "> VW squarecb, not measured" if squarecb is None else f"> VW squarecb ({squarecb:.4f})"
        found.append(
            goal(
                f"{family} on the same oracle, mean reward",
                round(mean, 4),
                bound,
                squarecb is not None and mean > squarecb,
            )
        )
    for name, least in (("first order / VW", 1.0), ("second order / obp LinUCB", 1.5)):
        ratio = min((one["ratio"] for one in speed[name].values()), default=0.0) if name in speed else 0.0
        found.append(goal(f"decisions a CPU second, least of the sets, {name}", ratio, f">= {least}", ratio >= least))
    return found


if __name__ == "__main__":
    main(__doc__, measure)
