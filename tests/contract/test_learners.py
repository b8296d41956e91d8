"""What every learner owes, whichever it is; the table of the configuration says which there are."""

from __future__ import annotations

import importlib
import io
import itertools
import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from pydantic import TypeAdapter

import engine.oracles
from engine.config import OracleConfig
from engine.oracles import LEARNERS, STORED, Columns, Learner, Oracle, UncertainOracle, learn_events, learner_of
from engine.oracles.ensemble import EnsembleLearner, bootstrap_weights
from engine.oracles.events import EventLearner
from engine.oracles.linear import LinearLearner
from engine.oracles.reduction import ReducedLearner
from engine.oracles.refitted import RefittedLearner
from engine.oracles.window import WindowLearner
from tests.contract.learning import ACTIONS, COLUMNS, Feedback, events_of

Float64 = NDArray[np.float64]

CONFIGS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "online_linear": {"kind": "online_linear", "bits": 12, "interactions": ["context:context", "action:id"]},
    "online_linear from above": {"kind": "online_linear", "bits": 12, "start": "high"},
    "online_logistic": {"kind": "online_logistic", "bits": 12},
    "ridge": {"kind": "recursive_ridge"},
    "ridge shared": {"kind": "recursive_ridge", "structure": "shared"},
    "ridge forgetting": {"kind": "recursive_ridge", "structure": "per_action", "forgetting": 0.97},
    "ridge fourier": {"kind": "recursive_ridge", "features": {"kind": "fourier", "size": 12, "warm_up": 40}},
    "ridge neural": {"kind": "recursive_ridge", "features": {"kind": "neural", "hidden": [6, 4]}},
    "trees": {"kind": "trees", "trees": 20, "every": 120, "memory": 1_500},
    "trees continued": {"kind": "trees", "trees": 10, "every": 60, "update": "continue"},
    "sklearn": {"kind": "sklearn", "estimator": "Ridge", "every": 120, "memory": 200},
    "sklearn boosted": {
        "kind": "sklearn",
        "estimator": "HistGradientBoostingRegressor",
        "parameters": {"max_iter": 20},
    },
    "sklearn online": {"kind": "sklearn", "estimator": "SGDRegressor", "parameters": {"eta0": 0.05}},
    "sklearn perceptron": {
        "kind": "sklearn",
        "estimator": "MLPRegressor",
        "parameters": {"learning_rate_init": 0.01},
        "max_actions": 4,
    },
    "ensemble": {"kind": "ensemble", "members": 3, "base": {"kind": "online_linear", "bits": 10}},
    "cover": {"kind": "cover", "policies": 3, "base": {"kind": "online_linear", "bits": 10}},
    "intercepts": {"kind": "intercepts"},
}
#: Rewards that are estimated batch by batch (``RewardModel``): how feedback falls into batches matters.
DEPENDS_ON_BATCHES = {"cover"}
every_kind = pytest.mark.parametrize("name", CONFIGS)


def made(name: str, columns: Columns = COLUMNS) -> Learner:
    return learner_of(TypeAdapter(OracleConfig).validate_python(CONFIGS[name]), columns)


def teach(learner: Learner, data: Feedback, start: int = 0, stop: int | None = None) -> None:
    if isinstance(learner, EventLearner):
        learn_events(learner, events_of(*data.part(start, stop)))
    else:
        learner.partial_fit(*data.part(start, stop))


def scores(learner: Learner, oracle: Oracle, data: Feedback) -> Float64:
    """Return predictions by action id: codes may differ from learner to learner."""
    codes = {action: code for code, action in enumerate(learner.vocabulary, start=1)}
    return np.stack([oracle.predict(data.X, np.full(len(data), codes.get(action, 0))) for action in ACTIONS])


def restored(learner: Learner) -> Learner:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **learner.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as archive:
        return STORED[learner.kind].from_arrays(dict(archive))


def bits(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, bytes]:
    return {key: np.asarray(array).tobytes() for key, array in arrays.items()}


def test_every_learner_of_the_package_is_held_to_this() -> None:
    found = set()
    for module in pkgutil.iter_modules(engine.oracles.__path__, "engine.oracles."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and "kind" in vars(value) and {"partial_fit", "from_arrays"} <= set(dir(value)):
                found.add(value)
    assert found == set(STORED.values())
    assert set(THRICE) == set(CONFIGS)
    made_of = {type(made(name)) for name in CONFIGS}
    assert made_of == found - {WindowLearner, ReducedLearner}  # which have tests of their own below
    assert {config["kind"] for config in CONFIGS.values()} == set(LEARNERS)
    assert set(STORED) == {*LEARNERS, "sklearn_online", "window", "reduced"}


@every_kind
def test_it_learns_what_is_good(name: str) -> None:
    data, fresh = Feedback(3_000, seed=1), Feedback(400, seed=2)
    learner = made(name)
    for start in range(0, 3_000, 250):
        teach(learner, data, start, start + 250)
    assert learner.learned == 3_000
    assert learner.width == 5
    found = scores(learner, learner.oracle(), fresh)
    # Better actions score higher, and so do rows with a greater first column.
    assert found[0].mean() + 0.05 < found[1].mean() < found[2].mean() or name in {"ridge shared"}
    assert np.corrcoef(found.mean(axis=0), fresh.X[:, 0])[0, 1] > 0.7


@every_kind
def test_any_split_into_batches_learns_the_same(name: str) -> None:
    data, fresh = Feedback(300, seed=3), Feedback(40, seed=4)
    whole, split = made(name), made(name)
    teach(whole, data)
    for start, stop in itertools.pairwise([0, 1, 2, 50, 50, 119, 120, 241, 300]):
        teach(split, data, start, stop)
    assert split.vocabulary == whole.vocabulary
    if name not in DEPENDS_ON_BATCHES:
        found, expected = (scores(each, each.oracle(), fresh) for each in (split, whole))
        assert_allclose(found, expected, rtol=0.0, atol=1e-9)


@every_kind
def test_a_restart_in_mid_stream_changes_no_bit(name: str) -> None:
    data = Feedback(300, seed=5)
    through, stopped = made(name), made(name)
    for start in range(0, 300, 60):
        teach(through, data, start, start + 60)
        stopped = restored(stopped)
        teach(stopped, data, start, start + 60)
    assert stopped.learned == through.learned
    assert bits(stopped.arrays()) == bits(through.arrays())
    assert bits(stopped.oracle().arrays()) == bits(through.oracle().arrays())


@every_kind
def test_the_live_view_is_what_a_snapshot_would_be_and_snapshots_stay(name: str) -> None:
    data, fresh = Feedback(200, seed=6), Feedback(30, seed=7)
    learner = made(name)
    live = learner.live()
    snapshots = []
    for start in range(0, 200, 40):
        teach(learner, data, start, start + 40)
        oracle = learner.oracle()
        snapshots.append((oracle, oracle.predict(fresh.X, np.zeros(30, np.int64)).tobytes()))
        assert_allclose(scores(learner, live, fresh), scores(learner, oracle, fresh), rtol=0.0, atol=1e-9)
        if isinstance(oracle, UncertainOracle) and name not in {"intercepts"}:
            assert isinstance(live, UncertainOracle)
            codes = np.arange(30) % (1 + len(learner.vocabulary))
            for found, expected in zip(
                live.predict_std(fresh.X, codes), oracle.predict_std(fresh.X, codes), strict=True
            ):
                assert_allclose(found, expected, rtol=0.0, atol=1e-9)
    for oracle, before in snapshots:
        assert oracle.predict(fresh.X, np.zeros(30, np.int64)).tobytes() == before


@every_kind
def test_statistics_that_are_damaged_are_refused(name: str) -> None:
    learner = made(name)
    teach(learner, Feedback(130, seed=8))
    arrays: dict[str, Any] = dict(learner.arrays())
    for key in arrays:
        with pytest.raises((KeyError, ValueError)):
            STORED[learner.kind].from_arrays({other: array for other, array in arrays.items() if other != key})
    for key in ("vocabulary", "settings", "config", "columns", "counts"):
        if key in arrays:
            with pytest.raises((ValueError, TypeError)):
                STORED[learner.kind].from_arrays({**arrays, key: arrays[key].reshape(-1)[:-1]})


@pytest.mark.parametrize("low_high", [(-1.0, 0.0), (0.0, 100.0), (-5.0, 5.0)])
@every_kind
def test_rewards_in_any_range_give_the_same_in_its_unit(name: str, low_high: tuple[float, float]) -> None:
    low, high = low_high
    columns = Columns(3, 2, low, high)
    one, other = Feedback(240, seed=9), Feedback(240, seed=9, columns=columns)
    unit, wide = made(name), made(name, columns)
    teach(unit, one)
    teach(wide, other)
    found = (scores(wide, wide.oracle(), one) - low) / (high - low)
    # The linear one is drawn to 0, wherever the range begins.
    tolerance = 0.5 if name == "linear" and low < 0.0 else 1e-6
    assert_allclose(found, scores(unit, unit.oracle(), one), rtol=0.0, atol=tolerance)


@every_kind
def test_a_row_without_weight_teaches_nothing_and_bad_rows_are_refused(name: str) -> None:
    data, fresh = Feedback(240, seed=10), Feedback(40, seed=11)
    learner = made(name)
    if isinstance(learner, EventLearner):
        return
    X, actions, rewards, _ = data.part(0, None)
    with pytest.raises(ValueError, match="weights must be finite"):
        learner.partial_fit(X, actions, rewards, np.full(240, -1.0))
    with pytest.raises(ValueError, match="do not fit"):
        learner.partial_fit(X[:, :-1], actions, rewards)
    weights = np.where(np.arange(240) % 2 == 0, 1.0, 0.0)
    learner.partial_fit(X, actions, np.where(weights > 0, rewards, 1.0 - rewards), weights)
    other = made(name)
    other.partial_fit(X, actions, rewards, weights)
    if name != "ridge forgetting":
        assert_allclose(
            scores(learner, learner.oracle(), fresh), scores(other, other.oracle(), fresh), rtol=0.0, atol=1e-9
        )


#: What is promised of a weight of 3: how far the learner then is from one that learned the row three times, as a share
#: of how far that one is from one that learned it once. 0: the same, but for rounding.
THRICE: dict[str, float] = {
    "linear": 0.0,
    "online_linear": 0.15,  # the adaptive rate sees one gradient, not three that shrink
    "online_linear from above": 0.15,
    "online_logistic": 0.05,
    "ridge": 0.0,
    "ridge shared": 0.0,
    "ridge forgetting": 0.5,  # forgets by the row
    "ridge fourier": 0.0,
    "ridge neural": 0.0,
    "trees": 0.7,  # leaves and categories have least numbers of rows, and bins hold rows
    "trees continued": 0.7,
    "sklearn": 0.0,  # Ridge: as far as the estimator takes sample_weight for a number of rows
    "sklearn boosted": 0.7,
    "sklearn online": 0.4,  # one step that is three times as long
    "sklearn perceptron": 1.5,  # Adam's steps are of one length: a weight counts beside the others of a step alone
    "ensemble": 0.7,  # draws its own weights by the row
    "cover": 0.25,
    "intercepts": 0.05,  # its oracle learns in between
}


def by_weight(name: str, rows: NDArray[np.int64], weights: Float64) -> Float64:
    """Return what a learner expects that was taught rows of one stream; the first 60, of weight 1, warm it up."""
    data, fresh = Feedback(360, seed=20), Feedback(200, seed=120)
    counts = {"memory": 5_000, "every": 5_000}  # both count rows
    config = {**CONFIGS[name], **(counts if name.startswith("trees") or name in ("sklearn", "sklearn boosted") else {})}
    learner = learner_of(TypeAdapter(OracleConfig).validate_python(config), COLUMNS)
    for part in (slice(0, 60), slice(60, None)):
        taught, w = rows[part], weights[part]
        X, actions, rewards = data.X[taught], [data.actions[i] for i in taught], data.rewards[taught]
        if isinstance(learner, EventLearner):
            learner.learn_events(events_of(X, actions, rewards, w))
        else:
            learner.partial_fit(X, actions, rewards, w)
    if isinstance(learner, RefittedLearner):
        learner.refit()
    return scores(learner, learner.oracle(), fresh)


@every_kind
def test_a_weight_of_three_is_the_row_three_times_as_far_as_is_promised(name: str) -> None:
    rows = np.arange(360)
    times = np.where((Feedback(360, seed=20).rewards > 0.5) & (rows >= 60), 3, 1)
    repeated = np.repeat(rows, times)
    thrice = by_weight(name, repeated, np.ones(len(repeated)))
    weighted, once = by_weight(name, rows, times.astype(np.float64)), by_weight(name, rows, np.ones(360))
    if THRICE[name] == 0.0:
        assert_allclose(weighted, thrice, rtol=0.0, atol=1e-9)
    else:
        off, apart = (float(np.sqrt(np.mean((each - thrice) ** 2))) for each in (weighted, once))
        assert off <= THRICE[name] * apart
    assert np.abs(weighted - once).max() > 0.01  # every kind takes weights


def test_each_member_of_an_ensemble_learns_by_the_weight_of_the_row_times_its_own() -> None:
    data, fresh = Feedback(200, seed=21), Feedback(40, seed=22)
    whole = EnsembleLearner([LinearLearner(5) for _ in range(3)], seed=7)
    teach(whole, data)
    drawn = bootstrap_weights(0, 200, 3, 7, poisson=True)
    for member, mine in zip(whole.members, drawn, strict=True):
        alone = LinearLearner(5)
        alone.partial_fit(data.X, data.actions, data.rewards, data.weights * mine)
        assert scores(member, member.oracle(), fresh).tobytes() == scores(alone, alone.oracle(), fresh).tobytes()


@pytest.mark.parametrize("learning", ["plain", "mtr", "ips", "dr"])
def test_a_learner_by_reduction_goes_on_after_a_restart(learning: Any) -> None:
    data = Feedback(200, seed=12)
    through = ReducedLearner(LinearLearner(5), learning, floor=0.01, low=0.0)
    teach(through, data, 0, 100)
    again = restored(through)
    for learner in (through, again):
        teach(learner, data, 100)
    assert bits(again.arrays()) == bits(through.arrays())
    assert again.learned == 200


def test_a_window_is_the_learner_of_its_rows_alone() -> None:
    data, fresh = Feedback(1_000, seed=13), Feedback(50, seed=14)
    config = TypeAdapter(OracleConfig).validate_python(CONFIGS["ridge"])
    window = WindowLearner(config, COLUMNS, 100)
    for start in range(0, 1_000, 7):
        teach(window, data, start, min(start + 7, 1_000))
        window_arrays = window.arrays()
        assert len(window_arrays["rows.codes"]) < 110
    kept = len(window.arrays()["rows.codes"])
    assert kept >= 100
    alone = made("ridge")
    teach(alone, data, 1_000 - kept)
    assert_allclose(scores(window, window.oracle(), fresh), scores(alone, alone.oracle(), fresh), rtol=0.0, atol=1e-9)
    again = restored(window)
    for learner in (window, again):
        teach(learner, data, 0, 60)
    assert bits(again.arrays()) == bits(window.arrays())
