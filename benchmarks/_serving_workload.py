"""What the serving benchmark asks: decision points, trained policies, and requests that fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.api.leeway.v1.service_pb2 import DecideBatchRequest, DecideRequest
from engine.client import Candidate, decide_request
from engine.config import DecisionPoint
from engine.oracles import LightGBMOracle, LinearOracle, Oracle
from engine.policy import Policy
from engine.records import Action, Features

#: Requests that take turns: with one alone, every branch of a tree would be foreseen.
TURNS = 64
SEED = 7
TREES, LEAVES = 100, 31


@dataclass(frozen=True)
class Shape:
    """How large a request is."""

    actions: int = 10
    context: int = 20
    features: int = 10

    @property
    def name(self) -> str:
        """Of the decision point."""
        return f"a{self.actions}_c{self.context}_f{self.features}"

    def point(self) -> dict[str, Any]:
        """Return the decision point as its user would write it."""
        return {
            "context": {f"c{i}": {"type": "number"} for i in range(self.context)},
            "actions": {"features": {f"f{i}": {"type": "number"} for i in range(self.features)}, "max": 1_000},
            "policy": {"exploration": {"kind": "squarecb"}},
        }

    def ids(self) -> list[str]:
        return [f"action-{i}" for i in range(self.actions)]

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return contexts and action features of all requests, float32."""
        rng = np.random.default_rng(SEED)
        contexts = rng.normal(size=(TURNS, self.context)).astype("<f4")
        return contexts, rng.normal(size=(TURNS, self.actions, self.features)).astype("<f4")

    def packed(self, name: str = "") -> list[DecideRequest]:
        """Return requests with flat features, to the decision point of this shape or of another name."""
        contexts, actions = self.numbers()
        candidates = [Action(id=identity) for identity in self.ids()]
        return [
            DecideRequest(
                decision_point=name or self.name,
                context=Features(packed=context.tobytes()),
                actions=candidates,
                packed_actions=rows.tobytes(),
            )
            for context, rows in zip(contexts, actions, strict=True)
        ]

    def named(self) -> list[DecideRequest]:
        """Return the same requests with named features."""
        made = []
        for context, rows in zip(*self.numbers(), strict=True):
            candidates = [
                Candidate(identity, {f"f{i}": float(value) for i, value in enumerate(row)})
                for identity, row in zip(self.ids(), rows, strict=True)
            ]
            request = decide_request(self.name, {f"c{i}": float(v) for i, v in enumerate(context)}, candidates)
            request.decision_id = ""
            made.append(request)
        return made

    def policy(self, kind: str, name: str) -> Policy:
        """Return a policy that has learned: ``linear``, or ``lightgbm``."""
        rng = np.random.default_rng(SEED)
        width = self.context + self.features
        oracle: Oracle = (
            LinearOracle(rng.normal(scale=0.05, size=(1 + self.actions, 1 + width)))
            if kind == "linear"
            else forest(width, self.actions)
        )
        point = DecisionPoint.model_validate(self.point())
        return Policy(name, point, tuple(self.ids()), oracle, 1, update=0, learned=10_000, created_ms=1)


def forest(width: int, actions: int) -> LightGBMOracle:
    """Return boosted trees over rows of noise and a sum: every tree has all of its leaves."""
    import lightgbm

    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(20_000, width)).astype(np.float32)
    codes = rng.integers(1, 1 + actions, size=len(rows)).astype(np.float32)
    rewards = np.tanh(rows.sum(axis=1) / 4.0) + 0.1 * codes + rng.normal(scale=0.1, size=len(rows))
    parameters = {"objective": "regression", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "seed": SEED}
    data = lightgbm.Dataset(np.column_stack([rows, codes]), label=rewards, params=parameters)
    return LightGBMOracle(lightgbm.train(parameters, data, num_boost_round=TREES).model_to_string())


def batches(requests: list[DecideRequest], size: int) -> list[bytes]:
    """Return serialized batches of requests, as many as there are requests, each beginning with another one."""
    twice = requests * (1 + size // len(requests) + 1)
    return [
        DecideBatchRequest(requests=twice[start : start + size]).SerializeToString() for start in range(len(requests))
    ]
