"""Off-policy evaluation: are the estimates the published ones, do intervals hold what they say, and does the gate?

Five parts: the values of Open Bandit Pipeline on its own public logs, which lie in the folder ``ope`` of
``LEEWAY_BENCHMARK_DATA``; coverage of every interval on worlds with a known truth, at one look and at every look; bias
and mean squared error beside Open Bandit Pipeline on the same logs; CPU time of both on a million rows; and the gate
over retrainings of which it is known whether the candidate is better.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _evaluation_coverage as coverage
from benchmarks import _evaluation_gate as gate
from benchmarks import _evaluation_peer as peer
from benchmarks._evaluation_world import WORLDS
from benchmarks._harness import goal, main
from training.evaluation import (
    IPS,
    SNIPS,
    ClippedDoublyRobust,
    ClippedIPS,
    DirectMethod,
    DoublyRobust,
    DRos,
    Estimator,
    LoggedRows,
    SelfNormalizedDR,
    SubGaussianDR,
    SubGaussianIPS,
    SwitchDR,
    estimate,
)
from training.plots import overlap

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("LEEWAY_BENCHMARK_DATA") or ROOT.parent / "shared" / "data") / "ope"
PLOT = Path("docs/images/overlap.png")
#: By the name that the reference values have.
REFERENCE: dict[str, Estimator] = {
    "IPS": IPS(),
    "clipped-IPS(10)": ClippedIPS(10.0),
    "clipped-IPS(100)": ClippedIPS(100.0),
    "SNIPS": SNIPS(),
    "DM": DirectMethod(),
    "DR": DoublyRobust(),
    "clipped-DR(10)": ClippedDoublyRobust(10.0),
    "SNDR": SelfNormalizedDR(),
    "Switch-DR(1)": SwitchDR(1.0),
    "Switch-DR(10)": SwitchDR(10.0),
    "Switch-DR(100)": SwitchDR(100.0),
    "DRos(1)": DRos(1.0),
    "DRos(100)": DRos(100.0),
    "DRos(10000)": DRos(10_000.0),
    "SGIPS(0.05)": SubGaussianIPS(0.05),
    "SGDR(0.05)": SubGaussianDR(0.05),
}


def published(name: str) -> LoggedRows:
    """Return a public log; of its logging policy it has the chosen action's propensity alone."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as data:
        pi = data["pi_e"].T[data["position"]] if "position" in data else data["pi_e"]
        n, actions = pi.shape
        logged = np.repeat((1.0 - data["pscore"]) / (actions - 1), actions)
        chosen = np.arange(n) * actions + data["action"]
        logged[chosen] = data["pscore"]
        return LoggedRows(
            np.arange(n + 1) * actions,
            chosen,
            data["reward"].astype(np.float64),
            logged,
            pi.ravel(),
            data["q_hat"].astype(np.float64).ravel(),
        )


def reference() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how far our values are from the published ones."""
    if not (DATA / "expected.json").exists():
        return {"skipped": f"no reference values in {DATA}; name their folder in LEEWAY_BENCHMARK_DATA"}, []
    expected = json.loads((DATA / "expected.json").read_text())
    found: dict[str, Any] = {}
    for log in (name for name in expected if name != "made_with"):
        rows = published(log)
        found[log] = {
            name: abs(estimate(estimator, rows).value - expected[log][name]["value"])
            for name, estimator in REFERENCE.items()
        }
    furthest = max(max(of_log.values()) for of_log in found.values())
    words = f"greatest difference to {len(REFERENCE)} reference values on {len(found)} logs"
    return found, [goal(words, furthest, f"<= {peer.TOLERANCE:g}", furthest <= peer.TOLERANCE)]


def measure(quick: bool) -> dict[str, Any]:
    seeds, runs, samples = (40, 100, 20) if quick else (500, 200, 200)
    values, goals = reference()
    once = coverage.at_one_look(seeds, 2_000)
    always = coverage.at_every_look(seeds, 3_000, 30)
    goals += coverage.goals(once, always, seeds)
    interpreter, why = peer.python()
    errors, of_errors = peer.tables(samples, 1_000, interpreter)
    spent, of_speed = peer.speed(200_000 if quick else 1_000_000, 10, 3 if quick else 5, interpreter)
    if not quick:
        heavy = WORLDS["heavy tail"]
        PLOT.parent.mkdir(parents=True, exist_ok=True)
        overlap(heavy.rows(heavy.sample(2_000, 0)), "a policy that the log has hardly tried").savefig(PLOT, dpi=90)
    promoted, of_gate = gate.measure(runs, quick)
    return {
        "reference_differences": values,
        "seeds": seeds,
        "coverage_at_one_look": once,
        "coverage_at_every_look": always,
        "obp": peer.REQUIREMENT if interpreter else why,
        "errors": errors,
        "cpu_seconds_per_million_rows": spent,
        "retrainings": runs,
        "gate": promoted,
        "goals": goals + of_errors + of_speed + of_gate,
    }


if __name__ == "__main__":
    main(__doc__, measure)
