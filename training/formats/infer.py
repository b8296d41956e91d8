"""The decision point that a log made elsewhere would have: its features by name and type, and its reward's range."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import yaml

from engine.config import DecisionPoint
from engine.errors import ConfigError
from engine.records import Feedback, Value

_LEAST_BUCKETS = 8
_MOST_BUCKETS = 1_024


class _Seen:
    """What was seen of one feature."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.count = 0
        self.sum = 0.0
        self.square = 0.0
        self.texts: set[str] = set()
        self.sizes: Counter[int] = Counter()

    def add(self, value: Value) -> None:
        kind = value.WhichOneof("kind") or ""
        self.kinds[kind] += 1
        if kind == "text":
            if len(self.texts) <= _MOST_BUCKETS:
                self.texts.add(value.text)
            return
        numbers = np.array(value.numbers.values if kind == "numbers" else [value.number])
        if kind == "numbers":
            self.sizes[len(numbers)] += 1
        self.count += len(numbers)
        self.sum += float(numbers.sum())
        self.square += float((numbers**2).sum())

    def declared(self) -> dict[str, Any] | None:
        """Return the declaration by what was seen most; ``None`` where nothing was."""
        kind = self.kinds.most_common(1)[0][0]
        if kind == "text":
            wanted = 2 * len(self.texts)
            return {"type": "text", "buckets": min(max(_LEAST_BUCKETS, 1 << (wanted - 1).bit_length()), _MOST_BUCKETS)}
        scale = _scale(self.count, self.sum, self.square)
        if kind == "number":
            return {"type": "number", "scale": scale}
        size = self.sizes.most_common(1)[0][0]
        return {"type": "vector", "size": size, "scale": scale} if size else None


def infer(feedbacks: Iterable[Feedback]) -> DecisionPoint:
    """Return a decision point into which (nearly) all of the feedback fits.

    A feature that comes in several types is declared as the most frequent one. Numbers get the inverse of their
    standard deviation for a scale, in two digits; texts twice as many buckets as there are different ones. Everything
    that the log cannot tell (the window, the policy) is at its default.

    Raises
    ------
    ConfigError
        There is no feedback, or it has more features than a decision point may have.
    """
    context: dict[str, _Seen] = defaultdict(_Seen)
    action: dict[str, _Seen] = defaultdict(_Seen)
    low, high, most = math.inf, -math.inf, 0
    for feedback in feedbacks:
        decision = feedback.decision
        for name, value in decision.context.named.items():
            context[name].add(value)
        for candidate in decision.actions:
            for name, value in candidate.features.items():
                action[name].add(value)
        low, high, most = min(low, feedback.reward), max(high, feedback.reward), max(most, len(decision.actions))
    if not most:
        raise ConfigError("there is no feedback to infer a decision point from")
    bounds = (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (min(math.floor(low), 0), max(math.ceil(high), 1))
    described = {
        "context": _declared(context),
        "actions": {"features": _declared(action), "max": max(most, 1_000)},
        "reward": {"range": list(map(float, bounds))},
    }
    try:
        return DecisionPoint.model_validate(described)
    except ValueError as error:
        raise ConfigError(f"no decision point can be inferred: {error}; declare it by hand") from None


def as_yaml(name: str, point: DecisionPoint) -> str:
    """Return the file of an installation with this decision point, everything else at its default."""
    said = point.model_dump(mode="json", include={"context": True, "actions": True, "reward": {"range"}})
    whole = {"version": 1, "decision_points": {name: said}}
    return yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=120)


def _declared(seen: Mapping[str, _Seen]) -> dict[str, Any]:
    declared = {name: seen[name].declared() for name in sorted(seen)}
    return {name: feature for name, feature in declared.items() if feature is not None}


def _scale(count: int, total: float, square: float) -> float:
    spread = math.sqrt(max(0.0, square / count - (total / count) ** 2)) if count else 0.0
    return float(f"{1.0 / spread:.2g}") if 1e-30 < spread < 1e30 else 1.0
