"""Decisions a CPU second, predicted, drawn and learned one at a time: Leeway and a peer, taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks._bandit_contenders import FIRST_ORDER, RIDGE, Contender, linucb
from benchmarks._bandit_peer import OBP, VOWPAL_WABBIT

#: Few actions and sparse rows; ten actions; many actions.
SETS = ["car", "pendigits", "letter"]
ROWS = 1_700

Play = Callable[[Contender, list[str], list[int], int | None], list[dict[str, Any]]]

_SQUARECB = {"kind": "squarecb", "gamma_scale": 100.0}
FIRST = Contender("first order", "squarecb", None, {"oracle": FIRST_ORDER, "exploration": _SQUARECB})
VW = Contender("VW", "squarecb", VOWPAL_WABBIT, {"way": "one_at_a_time", "flags": "--squarecb --gamma_scale 100"})
SECOND = Contender(
    "second order", "linucb", None, {"oracle": {**RIDGE, "features": {"kind": "raw"}}, "exploration": linucb(0.1)}
)
FOURIER = Contender("second order, 192 Fourier features", "linucb", None, {"oracle": RIDGE, "exploration": linucb(0.1)})
LINUCB = Contender("obp LinUCB", "epsilon 0.1", OBP, {"epsilon": 0.1})


def compare(play: Play, ours: Contender, theirs: Contender, rounds: int) -> dict[str, Any]:
    """Return for each set both figures and the ratio, medians of the rounds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SETS}
    for turn in range(rounds):
        pair = {}
        for contender in (ours, theirs) if turn % 2 else (theirs, ours):
            pair[contender.family] = {
                line["set"]: line["rows"] / line["cpu_seconds"] for line in play(contender, SETS, [turn], ROWS)
            }
        for name in SETS:
            found[name].append((pair[ours.family][name], pair[theirs.family][name]))
    return {
        name: {
            "decisions_per_cpu_second": round(statistics.median(a for a, _ in pairs)),
            "peer": round(statistics.median(b for _, b in pairs)),
            "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        }
        for name, pairs in found.items()
    }
