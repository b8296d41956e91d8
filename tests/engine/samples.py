"""A decision point with every kind of feature, requests that fit it, policies that serve it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock

import numpy as np

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.client import value_of
from engine.config import DecisionPoint
from engine.errors import LogError
from engine.features import Encoder
from engine.oracles import LinearOracle, Oracle
from engine.policy import Policy
from engine.records import Action, Decision, Features, Outcome
from engine.sealed import SealedDecision

NAME = "offers"
TIME_MS = 1_767_225_600_000
MOST_ACTIONS = 50

POINT = DecisionPoint.model_validate(
    {
        "context": {
            "amount": {"type": "number", "scale": 0.01},
            "country": {"type": "text", "buckets": 8},
            "taste": {"type": "vector", "size": 3, "scale": 2.0},
        },
        "actions": {
            "features": {
                "embedding": {"type": "vector", "size": 2},
                "kind": {"type": "text", "buckets": 4},
                "price": {"type": "number", "scale": -0.5},
            },
            "max": MOST_ACTIONS,
        },
        "policy": {"exploration": {"kind": "squarecb", "gamma_scale": 20.0}},
    }
)
VOCABULARY = ("north", "east", "south")


def context() -> Features:
    """Return a context."""
    named = {"amount": value_of(120.0), "country": value_of("NL"), "taste": value_of([0.5, -1.0, 2.0])}
    return Features(named=named)


def actions(*excluded: str) -> list[Action]:
    """Return four candidates, the last of which no vocabulary knows."""
    return [
        Action(
            id=name,
            features={
                "price": value_of(3.0 + place),
                "embedding": value_of([0.1 * place, -0.2]),
                "kind": value_of("big" if place % 2 else "small"),
            },
            excluded=name in excluded,
        )
        for place, name in enumerate((*VOCABULARY, "west"))
    ]


def request(decision_id: str = "", point: str = NAME) -> DecideRequest:
    """Return a request that can be served."""
    return DecideRequest(decision_point=point, decision_id=decision_id, context=context(), actions=actions())


def make_policy(
    seed: int = 1,
    *,
    oracle: Oracle | None = None,
    point: DecisionPoint = POINT,
    name: str = NAME,
    generation: int = 1,
    update: int = 0,
    learned: int = 4,
    created_ms: int = TIME_MS,
    uniform_share: float = 0.0,
) -> Policy:
    """Return a policy with coefficients by seed."""
    if oracle is None:
        theta = np.random.default_rng(seed).normal(scale=0.1, size=(1 + len(VOCABULARY), 1 + Encoder(point).width))
        oracle = LinearOracle(theta)
    return Policy(name, point, VOCABULARY, oracle, generation, update, learned, created_ms, uniform_share)


class MemoryRecorder:
    """A log in memory.

    Attributes
    ----------
    records
        What is in the log.
    failing
        While set, nothing gets into the log.
    held
        While set, records wait for ``confirm``.
    """

    def __init__(self) -> None:
        self.records: list[Decision | Outcome] = []
        self.failing = False
        self.held = False
        self._lock = Lock()
        self._waiting: list[tuple[Future[None], Sequence[Decision | Outcome]]] = []

    def record(self, records: Sequence[Decision | SealedDecision | Outcome]) -> Future[None]:
        """Take records at once, unless they are held."""
        future: Future[None] = Future()
        unsealed = [r.decision() if isinstance(r, SealedDecision) else r for r in records]
        with self._lock:
            self._waiting.append((future, unsealed))
        if not self.held:
            self.confirm()
        return future

    def confirm(self) -> None:
        """End what waits, well or with an error."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future, records in waiting:
            if self.failing:
                future.set_exception(LogError("disk full"))
            else:
                self.records += records
                future.set_result(None)

    @property
    def decisions(self) -> list[Decision]:
        """The decisions in the log."""
        return [record for record in self.records if isinstance(record, Decision)]

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes in the log."""
        return [record for record in self.records if isinstance(record, Outcome)]


class MemoryObserver:
    """Remembers the decisions it was told of, the policies that were swapped in and the points where one failed."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.unrecorded_at: list[str] = []
        self.swaps: list[str] = []
        self.load_errors: list[str] = []
        self.refusals: list[tuple[str, str]] = []
        self.degradations: list[tuple[str, str]] = []

    def begin(self) -> None:
        """Nothing to remember."""

    def end(self, method: str, code: str) -> None:
        """Nothing to remember."""

    def decided(self, point: str, seconds: float) -> None:
        """Nothing to remember."""

    def decision(self, decision: Decision | SealedDecision) -> None:
        """Remember a decision."""
        self.decisions.append(decision.decision() if isinstance(decision, SealedDecision) else decision)

    def sealed(self, point: str, made: Sequence[SealedDecision]) -> None:
        """Remember decisions."""
        assert all(decision.decision_point == point for decision in made)
        self.decisions += [decision.decision() for decision in made]

    def unrecorded(self, point: str) -> None:
        """Remember where."""
        self.unrecorded_at.append(point)

    def outcome(self) -> None:
        """Nothing to remember."""

    def swap(self, point: str, version: str, generation: int, learned: int, created_ms: int) -> None:
        """Remember what serves."""
        self.swaps.append(version)

    def refused(self, method: str, reason: str) -> None:
        """Remember which, and why."""
        self.refusals.append((method, reason))

    def turned_away(self, method: str, reason: str) -> None:
        """Remember which, and why."""
        self.refused(method, reason)

    def degraded(self, method: str, step: str) -> None:
        """Remember which, and how far."""
        self.degradations.append((method, step))

    def load_error(self, point: str) -> None:
        """Remember where it failed."""
        self.load_errors.append(point)
