"""Vowpal Wabbit by its Python binding. Runs in an environment of its own.

Reads a job as JSON from standard input and writes one line of JSON for each (data set, seed). Two ways:

``cbify``
    its own driver, that turns a labelled example into a decision. It simulates the bandit itself, so it is handed the
    labels; reward is 1 - its progressive loss.
``one_at_a_time``
    as a service would: predict a decision's vector, draw from it, learn the cost of what was drawn.

Features are named f0, f1, ...: numbers as names collide with the offsets of cbify's actions.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import vowpalwabbit  # type: ignore[import-not-found, unused-ignore]

from benchmarks._bandit_problem import Bandit


def text(row: Any) -> str:
    """Return the features of a row that are not 0."""
    return " ".join(f"f{column}:{row[column]:.7g}" for column in np.flatnonzero(row).tolist())


def cbify(path: Path, seed: int, rows: int | None, flags: str) -> tuple[float, int, float]:
    """Return mean reward, number of rows and CPU seconds of one pass of its own driver."""
    with np.load(path, allow_pickle=False) as data:
        order = np.random.RandomState(seed).permutation(len(data["X"]))[:rows]
        X, Y = data["X"][order], data["Y"][order]
    examples = [f"{right} | {text(row)}" for right, row in zip((Y.argmax(axis=1) + 1).tolist(), X, strict=True)]
    began = time.process_time()
    # tau-first is given as a share of the rows.
    explore = flags.format(first=max(1, round(0.05 * len(X))))
    workspace = vowpalwabbit.Workspace(f"--cbify {Y.shape[1]} --cb_explore_adf {explore} --cb_type mtr -b 18 --quiet")
    for example in examples:
        workspace.learn(example)
    loss = workspace.get_sum_loss() / len(examples)
    seconds = time.process_time() - began
    workspace.finish()
    return 1.0 - loss, len(examples), seconds


def one_at_a_time(path: Path, seed: int, rows: int | None, flags: str) -> tuple[float, int, float]:
    """Return mean reward, number of rows and CPU seconds of deciding and learning row by row."""
    bandit = Bandit(path, seed, rows)
    workspace = vowpalwabbit.Workspace(f"--cb_explore_adf {flags} --cb_type mtr -q sa -b 18 --quiet")
    rng = np.random.default_rng(seed)
    actions = [f"|a a{action}" for action in range(bandit.actions)]
    began = time.process_time()
    for context in bandit.contexts:
        shared = f"shared |s {text(context)}"
        p = workspace.predict([shared, *actions])
        u = rng.random() * sum(p)
        action, cumulative = 0, p[0]
        while cumulative < u and action < bandit.actions - 1:
            action += 1
            cumulative += p[action]
        cost = -bandit.act(action)
        labelled = f"0:{cost}:{p[action]} {actions[action]}"
        workspace.learn([shared, *actions[:action], labelled, *actions[action + 1 :]])
    seconds = time.process_time() - began
    workspace.finish()
    return bandit.mean_reward(), len(bandit), seconds


def run(job: dict[str, Any]) -> None:
    """Play every data set of a job with every seed."""
    way = {"cbify": cbify, "one_at_a_time": one_at_a_time}[job["configuration"]["way"]]
    for name in job["sets"]:
        for seed in job["seeds"]:
            reward, rows, seconds = way(
                Path(job["folder"]) / f"{name}.npz", seed, job["rows"], job["configuration"]["flags"]
            )
            line = {"set": name, "seed": seed, "reward": reward, "rows": rows, "cpu_seconds": seconds}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    run(json.load(sys.stdin))
