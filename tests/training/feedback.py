"""Feedback for tests: a decision point with every kind of feature, and rows that differ in every field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engine.config import DecisionPoint
from engine.records import FALLBACK_REASON_DEADLINE, Action, Decision, Features, Feedback, Numbers, Value

DAY_MS = 86_400_000
#: 2026-01-01 00:00 UTC.
NEW_YEAR_MS = 1_767_225_600_000

POINT = DecisionPoint.model_validate(
    {
        "context": {
            "age": {"type": "number", "scale": 0.01},
            "country": {"type": "text", "buckets": 8},
            "taste": {"type": "vector", "size": 3, "scale": -2.0},
        },
        "actions": {"features": {"price": {"type": "number"}, "brand": {"type": "text", "buckets": 4}}},
    }
)


def value(raw: float | str | Sequence[float]) -> Value:
    """Return the typed value of a raw one."""
    if isinstance(raw, str):
        return Value(text=raw)
    if isinstance(raw, (int, float)):
        return Value(number=raw)
    return Value(numbers=Numbers(values=raw))


def values(raw: Mapping[str, float | str | Sequence[float]]) -> dict[str, Value]:
    """Return typed values by name."""
    return {name: value(item) for name, item in raw.items()}


def feedback(i: int, time_ms: int, *, point: str = "offers", context: Features | None = None) -> Feedback:
    """Return the i-th feedback of a decision point like ``POINT``: some packed, some with features missing."""
    rng = np.random.default_rng(i)
    count = int(rng.integers(1, 5))
    probabilities = rng.dirichlet(np.ones(count))
    named: dict[str, float | str | Sequence[float]] = {"country": f"c{i % 5}"}
    if context is None and i % 3 == 0:
        context = Features(named=values(named), packed=rng.normal(size=4).astype("<f4").tobytes())
    elif context is None:
        if i % 3 == 1:
            named |= {"age": float(rng.normal()), "taste": rng.normal(size=3).tolist()}
        context = Features(named=values(named))
    packed = rng.normal(size=count).astype("<f4").tobytes() if i % 2 == 0 else b""
    actions = []
    for a in range(count):
        features = {"brand": Value(text=f"b{a}")}
        if i % 2 == 1 and a % 2 == 0:
            features["price"] = Value(number=float(rng.normal()))
        actions.append(Action(id=f"a{(i + a) % 7}", features=features, excluded=bool(a == 1)))
    chosen = 0 if count == 1 else int(rng.choice([a for a in range(count) if a != 1]))
    decision = Decision(
        decision_id=f"{point}-{i:06d}",
        decision_point=point,
        time_ms=time_ms,
        policy_version=f"g0.{i // 50}-0badcafe",
        context=context,
        actions=actions,
        packed_actions=packed,
        probabilities=probabilities,
        chosen=chosen,
    )
    if i % 10 == 0:
        decision.fallback = FALLBACK_REASON_DEADLINE
    else:
        decision.scores.extend(rng.normal(size=count))
    return Feedback(
        decision=decision,
        reward=float(rng.normal()),
        defaulted=i % 4 == 0,
        outcomes=i % 4,
        reward_time_ms=time_ms + 1_000 + i,
    )


def feedbacks(count: int, start_ms: int = NEW_YEAR_MS, step_ms: int = 1_000, first: int = 0) -> list[Feedback]:
    """Return feedback number ``first`` and so on, one every ``step_ms``."""
    return [feedback(first + i, start_ms + i * step_ms) for i in range(count)]
