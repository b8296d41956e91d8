"""Compiled loops of the oracles equal their twins in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.config import RecursiveRidgeConfig
from engine.config.oracle import INTERACTIONS
from engine.oracles import Columns, online_kernels, ridge_kernels
from engine.oracles.online import OnlineLinearLearner, OnlineLogisticLearner
from engine.oracles.recursive_ridge import RecursiveRidgeLearner
from tests.engine import oracle_twins

Float64 = NDArray[np.float64]
#: Of the greatest number of an array.
TOLERANCE = 1e-12


@contextmanager
def twins() -> Iterator[None]:
    """Let learners and oracles that are made meanwhile compute with NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        for kernels, twin in ((ridge_kernels, oracle_twins.Ridge), (online_kernels, oracle_twins.Online)):
            for name in ("affine", "columns_of", "follow", "learn", "quadratic", "score"):
                if hasattr(twin, name):
                    patch.setattr(kernels, name, getattr(twin, name))
        yield


def stream(seed: int, count: int, columns: Columns) -> tuple[Any, ...]:
    """Return rows with zeros and repetitions, some far out, and weights of all sizes, 0 among them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(count, columns.width)) * rng.choice([0.0, 1.0, 1.0, 5.0], size=(count, columns.width))
    X[1::4] = X[::4][: len(X[1::4])]
    actions = rng.choice(["a", "b", "c", "d"], size=count, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    weights = rng.choice([0.0, 0.3, 1.0, 3.0, 40.0], size=count)
    return X.astype(np.float32), actions, rng.choice([-1.0, -0.1, 0.0, 0.7, 2.0], size=count), weights


def assert_same(found: Float64, twin: Float64, what: str) -> None:
    found, twin = np.asarray(found, np.float64), np.asarray(twin, np.float64)
    assert found.shape == twin.shape, what
    scale = max(float(np.abs(twin).max(initial=0.0)), 1e-300)
    off = float(np.abs(found - twin).max(initial=0.0)) / scale
    assert off <= TOLERANCE, f"{what}: {off:.1e}"


def compare(make: Any, count: int, seed: int, columns: Columns, restart: int) -> None:
    """Teach a compiled learner and its twin the same, with a restart in between; compare all that they are."""
    X, actions, rewards, weights = stream(seed, count, columns)
    codes = np.random.default_rng(seed).integers(0, 4, count)
    results = []
    for compute in ("compiled", "twin"):
        with twins() if compute == "twin" else pytest.MonkeyPatch.context():
            learner = make()
            learner.partial_fit(X[:restart], actions[:restart], rewards[:restart], weights[:restart])
            learner = type(learner).from_arrays(learner.arrays())
            learner.partial_fit(X[restart:], actions[restart:], rewards[restart:], weights[restart:])
            known = np.minimum(codes, len(learner.vocabulary))
            results.append(
                {
                    **{key: value for key, value in learner.arrays().items() if value.dtype == np.float64},
                    "oracle": np.stack(learner.oracle().predict_std(X, known)),
                    "mean": learner.oracle().predict(X, known),
                    "live": np.stack(learner.live().predict_std(X, known)),
                    "live mean": learner.live().predict(X, known),
                }
            )
    compiled, twin = results
    assert set(compiled) == set(twin)
    for key, value in compiled.items():
        assert_same(value, twin[key], key)


@pytest.mark.parametrize(
    "features", [{"kind": "raw"}, {"kind": "fourier", "size": 6, "warm_up": 20}, {"kind": "neural", "hidden": [6]}]
)
@pytest.mark.parametrize("structure", ["shared", "per_action", "hierarchical"])
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    forgetting=st.sampled_from([1.0, 0.99, 0.9]),
    max_actions=st.sampled_from([2, 256]),
    restart=st.integers(0, 120),
)
def test_recursive_ridge(
    structure: str, features: dict[str, Any], seed: int, forgetting: float, max_actions: int, restart: int
) -> None:
    config = RecursiveRidgeConfig.model_validate(
        {"structure": structure, "features": features, "forgetting": forgetting, "max_actions": max_actions}
    )
    columns = Columns(3, 2, -1.0, 1.0)
    compare(lambda: RecursiveRidgeLearner(columns, config), 120, seed, columns, restart)


@pytest.mark.parametrize("kind", [OnlineLinearLearner, OnlineLogisticLearner])
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    interactions=st.sets(st.sampled_from(INTERACTIONS)),
    restart=st.integers(0, 40),
)
def test_first_order(kind: Any, seed: int, interactions: set[str], restart: int) -> None:
    columns = Columns(3, 2, -1.0, 2.0)
    compare(lambda: kind(columns, bits=14, interactions=sorted(interactions), rate=0.3), 60, seed, columns, restart)
