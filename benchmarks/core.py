"""What one decision costs inside the engine, by part (encode, score, explore, sample), and learning from one.

2, 10, 100 and 1,000 actions with 20 numbers each (10 of the context, 10 of the action), in one thread and without
transport. Costs are CPU time, beside a loop of the interpreter and the least that NumPy could do, taken in turns.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits

from benchmarks._harness import goal, main
from engine.config import DecisionPoint, OracleConfig
from engine.exploration import make_exploration
from engine.features import Encoder
from engine.oracles import Columns, Learner, UncertainOracle, learner_of
from engine.policy import Policy
from engine.records import Action, Features
from engine.sampling import draw

ACTIONS = (2, 10, 100, 1_000)
CONTEXT = ACTION = 10
ORACLES: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear", "max_actions": 1_000},
    "online_linear": {"kind": "online_linear"},
    "online_logistic": {"kind": "online_logistic"},
    "recursive_ridge shared": {"kind": "recursive_ridge", "structure": "shared"},
    "recursive_ridge hierarchical": {"kind": "recursive_ridge", "max_actions": 1_000},
    "recursive_ridge fourier 128": {
        "kind": "recursive_ridge",
        "structure": "per_action",
        "features": {"kind": "fourier"},
        "max_actions": 100,
    },
    "trees": {"kind": "trees", "every": 1_000},
    "ensemble of 10 online_linear": {"kind": "ensemble", "base": {"kind": "online_linear"}},
    "intercepts": {"kind": "intercepts"},
}
POINT = DecisionPoint.model_validate(
    {
        "context": {"c": {"type": "vector", "size": CONTEXT}},
        "actions": {"features": {"a": {"type": "vector", "size": ACTION}}, "max": 1_000},
    }
)


def microseconds(work: Callable[[], object], seconds: float) -> float:
    """Return CPU microseconds of one call, the median of five shares of ``seconds``."""
    work()
    calls, spent = 1, 0.0
    while spent < seconds / 25.0:
        calls *= 2
        began = time.process_time()
        for _ in range(calls):
            work()
        spent = time.process_time() - began
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - began) / calls)
    return 1e6 * statistics.median(found)


def spin() -> int:
    """Return the sum of the first thousand numbers: what the interpreter does in a known number of steps."""
    total = 0
    for i in range(1_000):
        total += i
    return total


class Request:
    """One request of some actions, in the packed and the named form."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.context = rng.normal(size=CONTEXT).astype("<f4")
        self.matrix = rng.normal(size=(count, ACTION)).astype("<f4")
        self.ids = [f"action-{i}" for i in range(count)]
        self.packed_context = Features(packed=self.context.tobytes())
        self.packed_actions = [Action(id=name) for name in self.ids]
        self.bytes = self.matrix.tobytes()
        self.named_context = Features()
        self.named_context.named["c"].numbers.values.extend(self.context.tolist())
        self.named_actions = [Action(id=name) for name in self.ids]
        for action, row in zip(self.named_actions, self.matrix.tolist(), strict=True):
            action.features["a"].numbers.values.extend(row)


def taught(config: dict[str, Any], ids: list[str], rng: np.random.Generator) -> Learner:
    """Return a learner that has seen every action."""
    learner = learner_of(TypeAdapter(OracleConfig).validate_python(config), Columns(CONTEXT, ACTION))
    n = max(2_000, 2 * len(ids))
    X = rng.normal(size=(n, CONTEXT + ACTION)).astype(np.float32)
    learner.partial_fit(X, (ids * math.ceil(n / len(ids)))[:n], rng.random(n))
    return learner


def by_part(count: int, seconds: float, rng: np.random.Generator) -> dict[str, float]:
    """Return microseconds of each part of a decision by the default policy."""
    request = Request(count, rng)
    learner = taught(ORACLES["linear"], request.ids, rng)
    vocabulary = tuple(learner.vocabulary)
    policy = Policy("core", POINT, vocabulary, learner.oracle(), 0, 1, learner.learned, 0)
    encoder = Encoder(POINT, vocabulary)
    encoded = encoder.encode(request.packed_context, request.packed_actions, request.bytes)
    prediction = policy.predict(encoded)
    p = policy.pmf(prediction, encoded.available).tolist()
    named = encoder.encode(request.named_context, request.named_actions)
    assert np.array_equal(named.X, encoded.X)

    def whole() -> None:
        mine = encoder.encode(request.packed_context, request.packed_actions, request.bytes)
        draw("a-decision", "salt", policy.pmf(policy.predict(mine), mine.available).tolist())

    X, weights = encoded.X.astype(np.float64), rng.normal(size=CONTEXT + ACTION)

    def least() -> None:
        scores = X @ weights
        gap = scores.max() - scores
        q = 1.0 / (count + 100.0 * gap)
        np.searchsorted(np.cumsum(q), 0.5)

    return {
        "encode, packed": microseconds(
            lambda: encoder.encode(request.packed_context, request.packed_actions, request.bytes), seconds
        ),
        "encode, named": microseconds(lambda: encoder.encode(request.named_context, request.named_actions), seconds),
        "score": microseconds(lambda: policy.predict(encoded), seconds),
        "explore": microseconds(lambda: policy.pmf(prediction, encoded.available), seconds),
        "sample": microseconds(lambda: draw("a-decision", "salt", p), seconds),
        "whole, packed": microseconds(whole, seconds),
        "numpy limit": microseconds(least, seconds),
        "spin": microseconds(spin, seconds),
    }


def by_oracle(name: str, count: int, seconds: float, rng: np.random.Generator) -> dict[str, float]:
    """Return microseconds of scoring one request and of learning one row, by kind of oracle."""
    ids = [f"action-{i}" for i in range(count)]
    learner = taught(ORACLES[name], ids, rng)
    oracle, live = learner.oracle(), learner.live()
    X = np.repeat(rng.normal(size=(1, CONTEXT + ACTION)).astype(np.float32), count, axis=0)
    X[:, CONTEXT:] = rng.normal(size=(count, ACTION))
    known = {action: code for code, action in enumerate(learner.vocabulary, start=1)}
    codes = np.array([known.get(action, 0) for action in ids])
    batch = rng.normal(size=(500, CONTEXT + ACTION)).astype(np.float32)
    actions, rewards = (ids * math.ceil(500 / count))[:500], rng.random(500)
    found = {
        "predict": microseconds(lambda: oracle.predict(X, codes), seconds),
        "live predict": microseconds(lambda: live.predict(X, codes), seconds),
    }
    if isinstance(oracle, UncertainOracle):
        found["predict_std"] = microseconds(lambda: oracle.predict_std(X, codes), seconds)
    if ORACLES[name]["kind"] != "trees":
        one = learner_of(TypeAdapter(OracleConfig).validate_python(ORACLES[name]), Columns(CONTEXT, ACTION))
        one.partial_fit(batch, actions, rewards)
        found["learn one row alone"] = microseconds(
            lambda: one.partial_fit(batch[:1], actions[:1], rewards[:1]), seconds
        )
        found["learn a row of 500"] = microseconds(lambda: one.partial_fit(batch, actions, rewards), seconds) / 500.0
    return found


def spanner(seconds: float, rng: np.random.Generator) -> dict[str, float]:
    """Return milliseconds of SpannerIGW over 100,000 actions whose rows and scores are given; gamma is 1,000 or 316.

    Rows of a round cloud are the easy case: a few of the longest span all. Embeddings lie in clusters.
    """
    from engine.config import SpannerIGWConfig
    from engine.prediction import Prediction

    width = CONTEXT + ACTION
    cloud = rng.normal(size=(100_000, width))
    clustered = rng.normal(size=(50, width))[rng.integers(0, 50, 100_000)] + 0.1 * cloud
    found = {}
    for name, rows, learned in (("round", cloud, 10_000), ("50 clusters", clustered, 1_000)):
        exploration = make_exploration(SpannerIGWConfig(), (0.0, 1.0))
        scores = rows @ rng.normal(size=width)
        scores = (scores - scores.min()) / np.ptp(scores)
        prediction = Prediction(scores, rows=rows.astype(np.float32))
        found[name] = microseconds(partial(exploration.pmf, prediction, learned), seconds) / 1e3
    return found


def measure(quick: bool) -> dict[str, Any]:
    seconds = 0.05 if quick else 0.25
    rng = np.random.default_rng(0)
    parts = {str(count): by_part(count, seconds, rng) for count in ACTIONS}
    oracles = {name: by_oracle(name, 10, seconds, rng) for name in ORACLES}
    large = {name: by_oracle(name, 1_000, seconds, rng)["predict"] for name in ORACLES if "fourier" not in name}
    ten, hundred, thousand = parts["10"], parts["100"], parts["1000"]
    growth = thousand["whole, packed"] / hundred["whole, packed"]
    spanner_ms = spanner(seconds, rng)
    learn = oracles["online_linear"]["learn a row of 500"]
    return {
        "microseconds_by_part_and_actions": parts,
        "microseconds_by_oracle_10_actions": oracles,
        "microseconds_predict_1000_actions": large,
        "whole_over_numpy_limit": {count: part["whole, packed"] / part["numpy limit"] for count, part in parts.items()},
        "whole_over_spin": {count: part["whole, packed"] / part["spin"] for count, part in parts.items()},
        "spanner_igw_100000_actions_ms": spanner_ms,
        "goals": [
            goal(
                "encode, score, explore, sample: 10 actions x 20 features, packed (us)",
                ten["whole, packed"], "<= 50", ten["whole, packed"] <= 50.0,
            ),
            goal("the same, 1,000 actions over 100 (ratio)", growth, "<= 12", growth <= 12.0),
            goal("online_linear learns a row (us)", learn, "<= 5", learn <= 5.0),
            *(
                goal(f"SpannerIGW over 100,000 actions, {name} (ms)", value, "< 5", value < 5.0)
                for name, value in spanner_ms.items()
            ),
        ],
    }  # fmt: skip


if __name__ == "__main__":
    with threadpool_limits(1, "blas"):  # as ``leeway serve`` has it
        main(__doc__, measure)
