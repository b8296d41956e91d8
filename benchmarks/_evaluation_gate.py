"""The gate over many retrainings whose outcome is known: how often it promotes what is worse, equal or better.

A champion logs; a candidate is fitted on one part of the log and judged on another by ``training.gate.judge``, with a
reward model that is cross-fitted on the latter. What a candidate is worth in truth follows from the world's tables.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from benchmarks._evaluation_world import KINDS, Float64, Sample, World, floored, softmax, world
from benchmarks._harness import goal
from training.config import GateConfig, GateIntervalName
from training.evaluation.policy import evaluate_rows
from training.gate import judge

#: Of the window, as by default.
HOLD_BACK = 0.25
FOLDS = 5
RANGE = (0.0, 1.0)
ERROR = 1.0 - GateConfig().confidence
INTERVALS: tuple[GateIntervalName, ...] = get_args(GateIntervalName)
KINDS_OF_CANDIDATE = ("worse", "equal", "better")


def cell_means(sample: Sample, actions: int, prior: float = 2.0) -> Float64:
    """Return the mean reward by kind and action, drawn towards the mean of all."""
    cell = sample.kind * actions + sample.action
    counts = np.bincount(cell, minlength=KINDS * actions)
    sums = np.bincount(cell, weights=sample.reward, minlength=KINDS * actions)
    means = (sums + prior * sample.reward.mean()) / (counts + prior)
    return np.asarray(means.reshape(KINDS, actions))


def part(sample: Sample, mask: slice | np.ndarray[Any, np.dtype[np.bool_]]) -> Sample:
    return Sample(sample.kind[mask], sample.action[mask], sample.reward[mask])


def cross_fitted(sample: Sample, actions: int) -> Float64:
    fold = np.arange(len(sample.kind)) % FOLDS
    q_hat = np.empty((len(sample.kind), actions))
    for k in range(FOLDS):
        q_hat[fold == k] = cell_means(part(sample, fold != k), actions)[sample.kind[fold == k]]
    return q_hat


def retrained(kind: str, seed: int, share: float, rate: float, rows: int) -> tuple[World, Float64, Float64 | None]:
    """Return a world, a candidate's policy, and the scores that it was made of, if it has any.

    Actions are twins, two and two, of equal mean. An *equal* candidate gives one twin what the champion gives the
    other. A *better* one is fitted on the log; a *worse* one too, and then mixes its actions up.
    """
    made = world(actions=6, greed=2.0, share=share, rate=rate, seed=seed)
    mean = made.mean.copy()
    mean[:, 1::2] = mean[:, ::2]
    made = World(mean, made.logging, made.target, made.q_hat, made.cluster)
    swapped = made.logging.reshape(KINDS, 3, 2)[:, :, ::-1].reshape(KINDS, 6)
    if kind == "equal":
        return made, swapped, None
    score = cell_means(made.sample(rows, 2 * seed), 6)
    wanted = score if kind == "better" else np.roll(score, 2, axis=1)
    policy = floored(softmax(2.0 * (wanted - wanted.mean()) / wanted.std()), 0.1)
    if kind == "worse" and seed % 2:
        policy = 0.1 * policy + 0.9 * swapped
    return made, policy, score


def promotions(runs: int, share: float, rate: float, rows: int) -> dict[str, Any]:
    """Return by interval and kind of candidate how many were promoted, and why not."""
    found: dict[str, Any] = {name: {} for name in INTERVALS}
    for kind in KINDS_OF_CANDIDATE:
        judged = 0
        seed = 0
        counts = dict.fromkeys(INTERVALS, 0)
        refused: dict[str, int] = {}
        gains = []
        while judged < runs:
            seed += 1
            made, policy, score = retrained(kind, seed, share, rate, rows)
            gain = made.value(policy) - made.value(made.logging)
            if (kind == "worse" and gain >= 0.0) or (kind == "better" and gain <= 0.0):
                continue  # it is not what it was made for
            judged += 1
            gains.append(gain)
            held = made.sample(round(rows * HOLD_BACK / (1.0 - HOLD_BACK)), 2 * seed + 1)
            q_hat = cross_fitted(held, 6)
            predicted = None if score is None else score[held.kind, held.action]
            candidate = evaluate_rows(made.rows(held, policy, q_hat), predicted)
            champion = evaluate_rows(made.rows(held, made.logging, q_hat))
            for name in INTERVALS:
                verdict = judge(candidate, champion, GateConfig(interval=name), comparisons=1, reward_range=RANGE)
                counts[name] += verdict.promoted
                if name == "student":
                    for check in verdict.checks:
                        refused[check.name] = refused.get(check.name, 0) + (not check.holds)
        for name in INTERVALS:
            found[name][kind] = counts[name] / runs
        found[f"{kind}: mean gain"] = round(float(np.mean(gains)), 4)
        found[f"{kind}: share that fails each check (student)"] = {
            name: count / runs for name, count in refused.items() if count
        }
    return found


#: Share of the uniform draw in the champion, mean reward, rows to fit on: fair exploration and common rewards, few
#: rows and many; little exploration and rare rewards.
SETTINGS = {
    "share 0.2, rate 0.5, 2,000 rows": (0.2, 0.5, 1_500),
    "share 0.2, rate 0.5, 20,000 rows": (0.2, 0.5, 15_000),
    "share 0.05, rate 0.1, 20,000 rows": (0.05, 0.1, 15_000),
}


def measure(runs: int, quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    chosen = list(SETTINGS)[:1] if quick else list(SETTINGS)
    found = {name: promotions(runs, *SETTINGS[name]) for name in chosen}
    stated = [
        goal(
            f"gate, {interval}, {name}: share of {runs} truly worse candidates promoted",
            facts[interval]["worse"],
            f"<= {ERROR:.2g}",
            facts[interval]["worse"] <= ERROR + 1e-12,
        )
        for name, facts in found.items()
        for interval in INTERVALS
    ]
    return found, stated
