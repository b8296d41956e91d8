"""Who takes part in the bandits benchmark, and the grids over which each is tuned."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from benchmarks._bandit_peer import CONTEXTUALBANDITS, OBP, VOWPAL_WABBIT, Peer

#: Every exploration that is deterministic, or nearly, is mixed with so much of uniform: p >= FLOOR / K.
FLOOR = 0.002


@dataclass(frozen=True)
class Contender:
    """One policy with one configuration.

    Attributes
    ----------
    family
        What is tuned: the best configuration of each family stands in the table.
    name
        With its parameters.
    peer
        Whose it is; none: Leeway's.
    configuration
        As its program reads it.
    """

    family: str
    name: str
    peer: Peer | None
    configuration: dict[str, Any]


RIDGE = {
    "kind": "recursive_ridge",
    "structure": "per_action",
    "noise": 1.0,
    "features": {"kind": "fourier", "size": 192},
}
FIRST_ORDER = {"kind": "online_linear", "interactions": ["context:id"], "rate": 0.5}


def linucb(alpha: float) -> dict[str, Any]:
    """Return LinUCB with the floor, as configuration."""
    return {"kind": "floor", "epsilon": FLOOR, "inner": {"kind": "linucb", "alpha": alpha}}


def leeway(quick: bool) -> list[Contender]:
    """Return Leeway's: one oracle of second order and four explorations, and one of first order.

    Of a wider grid the best of each and one beside it; that of the peers is whole.
    """
    explorations: list[tuple[str, str, dict[str, Any]]] = [
        *(("LinUCB with floor", f"alpha {alpha}", linucb(alpha)) for alpha in ([0.15] if quick else [0.1, 0.15])),
        *(
            ("SquareCB", f"gamma {scale}", {"kind": "squarecb", "gamma_scale": scale})
            for scale in ([30.0] if quick else [10.0, 30.0])
        ),
        *(
            ("FastCB", f"gamma {scale}", {"kind": "fastcb", "gamma_scale": scale, "least_loss": 1e-3})
            for scale in ([10.0] if quick else [3.0, 10.0])
        ),
        *(
            (
                "FALCON",
                f"constant {constant}, growth {growth}",
                {"kind": "falcon", "constant": constant, "growth": growth},
            )
            for constant, growth in ([(10.0, 1.25)] if quick else [(10.0, 2.0), (10.0, 1.1)])
        ),
    ]
    found = [
        Contender(f"Leeway {family}", parameters, None, {"oracle": RIDGE, "exploration": exploration})
        for family, parameters, exploration in explorations
    ]
    first_order = [("low", 0.5, 100.0), ("high", 0.5, 100.0), ("high", 0.1, 1000.0)]
    for start, rate, scale in first_order[-1:] if quick else first_order:
        oracle = {**FIRST_ORDER, "rate": rate, "start": start}
        configuration = {"oracle": oracle, "exploration": {"kind": "squarecb", "gamma_scale": scale}}
        name = f"rate {rate}, from {start}, gamma {scale}"
        found.append(Contender("Leeway SquareCB, first order", name, None, configuration))
    return found


VW_EXPLORERS = {
    "greedy": ["--epsilon 0"],
    "epsilon-greedy": ["--epsilon 0.02", "--epsilon 0.05"],
    "squarecb": ["--squarecb --gamma_scale 10", "--squarecb --gamma_scale 100", "--squarecb --gamma_scale 1000"],
    "regcb": ["--regcb --mellowness 0.001", "--regcb --mellowness 0.01"],
    "regcbopt": ["--regcbopt --mellowness 0.001", "--regcbopt --mellowness 0.01"],
    "cover": ["--cover 4 --nounif --psi 0.1"],
    "bag": ["--bag 4 --greedify"],
    "first": ["--first {first}"],
}
VW_QUICK = {"greedy": ["--epsilon 0"], "squarecb": ["--squarecb --gamma_scale 1000"]}


def peers(quick: bool) -> list[Contender]:
    """Return the peers'; in a quick run the configurations alone that were best in the full one."""
    found = [
        Contender(
            f"VW {family}",
            f"{flags} -l {rate}".format(first="5 % of the rows"),
            VOWPAL_WABBIT,
            {"way": "cbify", "flags": f"{flags} -l {rate}"},
        )
        for family, flagss in (VW_QUICK if quick else VW_EXPLORERS).items()
        for flags, rate in itertools.product(flagss, [2.0] if quick else [0.5, 2.0, 5.0])
    ]
    found += [
        Contender("obp LinUCB", f"epsilon {alpha}", OBP, {"epsilon": alpha})
        for alpha in ([0.1] if quick else [0.03, 0.1, 0.3])
    ]
    if not quick:
        found += [
            Contender("contextualbandits LinUCB", f"alpha {alpha}", CONTEXTUALBANDITS, {"alpha": alpha})
            for alpha in [0.1, 0.3]
        ]
    return found
