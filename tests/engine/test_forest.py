"""Boosted trees walked by our own code: LightGBM's numbers to the bit, and no text that leads it astray."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.oracles import LightGBMOracle
from engine.oracles.forest import Forest

WIDTH = 6


def table(seed: int, rows: int = 500) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return rows in which a number is whole, one is mostly zero, and one too small for LightGBM."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    X[:, 0] = np.round(2.0 * X[:, 0])
    X[:, 1] *= rng.random(rows) < 0.2
    X[:, 2] *= np.float32(1e-35)
    return X, rng.integers(0, 70, rows)


def trained(seed: int, **parameters: Any) -> lightgbm.Booster:
    X, codes = table(seed)
    y = np.sin(X).sum(axis=1) + 4.0 * (codes % 3)
    rows = np.column_stack([X, codes.astype(np.float32)])
    rounds = parameters.pop("rounds", 13)
    if parameters.get("objective") == "binary":
        y = (y > 4.0).astype(float)
    if parameters.pop("constant", False):
        y = np.ones(len(y))
    if parameters.pop("gaps", False):
        rows[::7, 3] = np.nan
    fixed = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 5, "seed": seed}
    data = lightgbm.Dataset(rows, y, categorical_feature=[WIDTH])
    return lightgbm.train(fixed | parameters, data, rounds)


@pytest.mark.parametrize(
    ("parameters", "own"),
    [
        ({}, True),
        ({"objective": "binary"}, True),
        ({"objective": "binary", "sigmoid": 0.7}, True),
        ({"objective": "quantile", "alpha": 0.3}, True),
        ({"num_leaves": 2, "rounds": 1}, True),
        ({"num_leaves": 255, "min_data_in_leaf": 1, "rounds": 6}, True),
        ({"constant": True}, True),
        ({"gaps": True}, True),
        ({"max_cat_to_onehot": 1, "cat_l2": 0.0, "rounds": 30}, True),
        ({"objective": "poisson", "constant": True}, False),
        ({"linear_tree": True}, False),
        ({"zero_as_missing": True}, False),
        ({"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}, False),
        ({"reg_sqrt": True}, False),
    ],
    ids=str,
)
def test_the_numbers_are_those_of_lightgbm_bit_for_bit(parameters: dict[str, Any], own: bool) -> None:
    text = trained(4, **parameters).model_to_string()
    assert (Forest.read(text) is not None) == own
    oracle, booster = LightGBMOracle(text), lightgbm.Booster(model_str=text)
    X, codes = table(5, 700)
    rows = np.column_stack([X, codes.astype(np.float32)])
    for count in (1, 2, 10, 700):
        expected = np.asarray(booster.predict(rows[:count], num_threads=1), np.float64)
        assert oracle.predict(X[:count], codes[:count]).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match=f"{WIDTH - 1} columns"):
        oracle.predict(X[:3, :-1], codes[:3])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    leaves=st.integers(2, 64),
    rounds=st.integers(1, 9),
    binary=st.booleans(),
)
def test_any_forest_at_its_own_thresholds(seed: int, leaves: int, rounds: int, binary: bool) -> None:
    booster = trained(seed, num_leaves=leaves, rounds=rounds, objective="binary" if binary else "regression")
    text = booster.model_to_string()
    oracle = LightGBMOracle(text)
    X, codes = table(seed + 1, 300)
    # Where a row lies on a threshold, or on the float32 beside it, a comparison in single precision would go astray.
    limits = np.array(
        [float(word) for line in text.split("\n") if line.startswith("threshold=") for word in line[10:].split()]
    ).astype(np.float32)
    picked = np.random.default_rng(seed).choice(limits, X.shape)
    X = np.where(np.arange(len(X))[:, None] % 3 == 0, picked, X)
    X = np.where(np.arange(len(X))[:, None] % 3 == 1, np.nextafter(picked, np.float32(np.inf)), X)
    codes[::5] = 10_000  # of no tree
    rows = np.column_stack([X, codes.astype(np.float32)])
    expected = np.asarray(booster.predict(rows, num_threads=1), np.float64)
    assert oracle.predict(X, codes).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("left_child", lambda values: [0, *values[1:]], "leads to what it has not"),  # to itself, for ever
        ("right_child", lambda values: [len(values), *values[1:]], "leads to what it has not"),
        ("right_child", lambda values: [-len(values) - 2, *values[1:]], "leads to what it has not"),
        ("split_feature", lambda values: [WIDTH + 1, *values[1:]], "leads to what it has not"),
        ("split_feature", lambda values: [-1, *values[1:]], "leads to what it has not"),
        ("split_feature", lambda values: values[1:], "do not fit"),
        ("threshold", lambda values: ["nan"] * len(values), "categories"),
        ("leaf_value", lambda values: ["inf", *values[1:]], "not finite"),
        ("leaf_value", lambda values: values[1:], "do not fit"),
        ("left_child", lambda values: ["x", *values[1:]], "left_child: invalid literal"),
        ("cat_boundaries", lambda values: [*values[:-1], 10_000], "categories"),
        ("cat_threshold", lambda values: values[1:], "categories"),
    ],
)
def test_a_text_that_would_lead_it_astray_is_refused(name: str, change: Any, words: str) -> None:
    lines = trained(4, max_cat_to_onehot=1, cat_l2=0.0).model_to_string().split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith(name + "="))
    values = lines[place].removeprefix(name + "=").split()
    lines[place] = f"{name}=" + " ".join(map(str, change(values)))
    with pytest.raises(ValueError, match=words):
        LightGBMOracle("\n".join(lines))


def test_a_text_that_was_cut_is_refused() -> None:
    text = trained(4).model_to_string()
    end = text.index("\nend of trees")
    for length in range(0, end, 97):
        with pytest.raises(ValueError, match="no readable LightGBM model"):
            LightGBMOracle(text[:length])


def test_whoever_serves_trees_does_not_load_lightgbm() -> None:
    text = trained(4).model_to_string()
    program = (
        "import sys; import numpy as np; from engine.oracles import LightGBMOracle; "
        "oracle = LightGBMOracle(sys.stdin.read()); "
        f"oracle.predict(np.zeros((2, {WIDTH}), np.float32), np.array([0, 1])); sys.exit('lightgbm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], input=text, text=True, check=False).returncode == 0


def test_many_rows_hold_up_no_other_thread() -> None:
    oracle = LightGBMOracle(trained(4, rounds=40).model_to_string())
    X, codes = table(5, 200_000)

    def longest_pause() -> float:
        """Return the longest time that this thread had to wait, as a share of what the rows took."""
        began = before = time.perf_counter()
        thread = threading.Thread(target=oracle.predict, args=(X, codes))
        thread.start()
        pause = 0.0
        while thread.is_alive():
            now = time.perf_counter()
            pause, before = max(pause, now - before), now
        return pause / (time.perf_counter() - began)

    # A busy machine lets a thread wait too, but not each time; a walk that keeps the interpreter does.
    assert min(longest_pause() for _ in range(5)) < 0.5
