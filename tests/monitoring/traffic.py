"""Made-up feedback of one decision point, with a change in one thing alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from engine.records import Action, Decision, Features, Feedback, Value
from monitoring.bins import Values

Changed = Literal["nothing", "reward", "feature", "country", "actions", "candidates", "delay", "defaults"]
POINT = "offers"
ACTIONS = ("a", "b", "c")
START_MS = 1_700_006_400_000  # midnight UTC
SCORES = np.array([0.6, 0.5, 0.4])
PROBABILITIES = np.array([0.6, 0.25, 0.15])


def columns(decisions: Sequence[Decision]) -> Mapping[str, Values]:
    """Return the features of ``traffic``."""
    country = np.empty(len(decisions), object)
    country[:] = [decision.context.named["country"].text for decision in decisions]
    return {"x": np.array([d.context.named["x"].number for d in decisions]), "country": country}


def traffic(
    seed: int,
    first: int,
    count: int,
    changed: Changed = "nothing",
    *,
    step_ms: int = 1_000,
    generation: int = 0,
    probabilities: np.ndarray[Any, np.dtype[np.float64]] = PROBABILITIES,
    evening: float = 0.0,
    scored: bool = True,
) -> Iterator[Feedback]:
    """Yield feedback number ``first`` and on; rewards follow the scores, and actions the probabilities.

    ``evening`` is by how much country, x and reward move from noon to midnight, and back.
    """
    rng = np.random.default_rng([seed, first])
    shares = np.array([0.3, 0.4, 0.3]) if changed == "actions" else probabilities
    for number in range(first, first + count):
        time_ms = START_MS + number * step_ms
        wave = evening * np.cos(2 * np.pi * (time_ms % 86_400_000) / 86_400_000)
        home = (0.2 if changed == "country" else 0.6) + wave / 2
        x = rng.normal() + wave + (0.8 if changed == "feature" else 0.0)
        chosen = int(rng.choice(3, p=shares))
        mean = SCORES[chosen] * (0.5 if changed == "reward" else 1.0) + wave / 2
        reward = float(rng.random() < mean)
        names = ("a", "b", "d") if changed == "candidates" else ACTIONS
        late = 4.0 if changed == "delay" else 1.0
        defaulted = bool(rng.random() < (0.5 if changed == "defaults" else 0.1))
        yield Feedback(
            decision=Decision(
                decision_id=f"{seed}-{number}",
                decision_point=POINT,
                time_ms=time_ms,
                policy_version=f"g{generation}.0-00000000",
                context=Features(
                    named={
                        "x": Value(number=x),
                        "country": Value(text="NL" if rng.random() < home else str(rng.choice(["DE", "FR"]))),
                    }
                ),
                actions=[Action(id=name) for name in names],
                probabilities=probabilities.tolist(),
                chosen=chosen,
                scores=SCORES.tolist() if scored else [],
                salt="leeway",
            ),
            reward=reward,
            defaulted=defaulted,
            outcomes=int(not defaulted),
            reward_time_ms=time_ms + round(rng.exponential(500.0 * late)),
        )
