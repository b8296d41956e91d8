"""What learners give that are built anew in the background, whenever the work is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import TypeAdapter

from engine.config import OracleConfig
from engine.oracles import STORED, LinearOracle, Oracle
from engine.oracles.refitted import RefittedLearner
from engine.oracles.window import WindowLearner
from tests.contract.learning import COLUMNS, Feedback

T = TypeVar("T")


class Patient:
    """A worker that does what it was given when it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, work: Callable[[], T], /) -> Future[T]:
        future: Future[T] = Future()
        self.work.append((future, work))
        return future

    def go(self) -> None:
        """Do it all."""
        for future, work in self.work:
            try:
                future.set_result(work())
            except ValueError as error:
                future.set_exception(error)
        self.work = []


class Means(RefittedLearner):
    """Fits a constant, and writes down on which rows: their rewards are their numbers."""

    kind = "means"

    def __init__(self, memory: int = 30, every: int = 10) -> None:
        super().__init__(COLUMNS, memory=memory, every=every, max_actions=5)
        self.fits: list[list[int]] = []
        self.fails = False

    def fit(self, X: Any, codes: Any, rewards: Any, weights: Any, before: Oracle) -> Oracle:
        if self.fails:
            raise ValueError("no fit")
        self.fits.append(rewards.astype(int).tolist())
        theta = np.zeros((1, 1 + COLUMNS.width))
        theta[0, 0] = rewards.mean()
        return LinearOracle(theta)


def numbered(learner: Means, start: int, stop: int) -> None:
    count = stop - start
    learner.partial_fit(
        np.zeros((count, COLUMNS.width), np.float32), ["a"] * count, np.arange(start, stop, dtype=np.float64)
    )


def expects(learner: Means) -> float:
    return float(learner.oracle().predict(np.zeros((1, COLUMNS.width), np.float32), np.zeros(1, np.int64))[0])


def test_a_fit_knows_the_rows_before_it_was_begun_and_takes_over_when_it_is_done() -> None:
    learner, worker = Means(), Patient()
    learner.work_in(worker)
    numbered(learner, 0, 15)
    assert not learner.settle()
    assert expects(learner) == 0.0
    worker.go()
    assert learner.settle()
    assert not learner.settle()
    assert learner.fits == [list(range(10))]
    assert expects(learner) == 4.5
    assert learner.vocabulary == ["a"]
    numbered(learner, 15, 26)  # due at 20
    numbered(learner, 26, 34)  # and at 30: waits
    worker.go()
    assert learner.settle()
    worker.go()
    assert learner.settle()
    assert learner.fits[1:] == [list(range(20)), list(range(4, 34))]


@settings(max_examples=60)
@given(parts=st.lists(st.integers(0, 12), min_size=1, max_size=30), done=st.lists(st.booleans(), min_size=30))
def test_every_fit_is_of_the_latest_rows_and_no_more_than_two_memories_are_kept(
    parts: list[int], done: list[bool]
) -> None:
    learner, worker = Means(memory=15, every=4), Patient()
    learner.work_in(worker)
    begun, at = [], 0
    for count, finish in zip(parts, done, strict=False):
        if worker.work and len(learner.arrays()["rows.codes"]) + count >= 30:
            worker.go()  # it would be waited for
            learner.settle()
            worker.go()
        before = len(worker.work)
        numbered(learner, at, at + count)
        at += count
        if len(worker.work) > before:
            begun.append(learner._errand.at)
        if finish:
            worker.go()
        assert len(learner.arrays()["rows.codes"]) < 30
    for rows in learner.fits:
        assert rows == list(range(max(0, rows[-1] - 14), rows[-1] + 1))


def test_the_error_of_a_fit_comes_back_and_the_fit_is_owed() -> None:
    learner, worker = Means(), Patient()
    learner.work_in(worker)
    numbered(learner, 0, 12)
    learner.fails = True
    worker.go()
    with pytest.raises(ValueError, match="no fit"):
        numbered(learner, 12, 13)
    assert learner.learned == 12
    learner.fails = False
    numbered(learner, 12, 13)
    worker.go()
    assert learner.settle()
    assert learner.fits == [list(range(10))]


CONFIGS: dict[str, dict[str, Any]] = {
    "trees": {"kind": "trees", "trees": 5, "every": 60, "memory": 100, "min_child": 3},
    "continued": {"kind": "trees", "trees": 5, "every": 60, "memory": 100, "min_child": 3, "update": "continue"},
    "sklearn": {"kind": "sklearn", "estimator": "Ridge", "every": 60, "memory": 100},
    "window": {"kind": "recursive_ridge"},
}


def made(name: str) -> Any:
    from engine.oracles import learner_of

    config = TypeAdapter(OracleConfig).validate_python(CONFIGS[name])
    return WindowLearner(config, COLUMNS, 60) if name == "window" else learner_of(config, COLUMNS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_the_middle_of_the_work_gives_the_same_as_going_on(name: str) -> None:
    data = Feedback(90, seed=1)
    learner, worker = made(name), Patient()
    learner.work_in(worker)
    learner.partial_fit(*data.part(0, 75))
    again: Any = STORED[learner.kind].from_arrays(learner.arrays())
    assert {key: array.tobytes() for key, array in again.arrays().items()} == {
        key: array.tobytes() for key, array in learner.arrays().items()
    }
    other = Patient()
    again.work_in(other)
    for each, its in ((learner, worker), (again, other)):
        each.partial_fit(*data.part(75, 90))
        its.go()
        assert each.settle()
    X, codes = data.X, np.ones(90, np.int64)
    assert learner.oracle().predict(X, codes).tobytes() == again.oracle().predict(X, codes).tobytes()
    assert again.learned == learner.learned == 90


@pytest.mark.parametrize("wrong", [np.array([80]), np.array([-1]), np.array([10, 20]), np.array([0.5])])
def test_work_that_does_not_fit_the_rows_is_refused(wrong: Any) -> None:
    for name in ("trees", "window"):
        learner = made(name)
        learner.partial_fit(*Feedback(70, seed=1).part(0, 70))
        arrays = learner.arrays()
        with pytest.raises(ValueError, match=r"does not fit|integers"):
            STORED[learner.kind].from_arrays({**arrays, "under_way": wrong})


def test_a_window_in_the_background_ends_as_one_that_waits() -> None:
    data, worker = Feedback(400, seed=2), Patient()
    window, waits = made("window"), made("window")
    window.work_in(worker)
    rng = np.random.default_rng(0)
    at = 0
    while at < 400:
        stop = min(at + int(rng.integers(1, 6)), 400)
        window.partial_fit(*data.part(at, stop))
        waits.partial_fit(*data.part(at, stop))
        at = stop
        if rng.random() < 0.3:
            worker.go()
        assert len(window.arrays()["rows.codes"]) < 132
    worker.go()
    window.settle()
    kept = len(window.arrays()["rows.codes"])
    alone = made("window")
    alone.partial_fit(*data.part(400 - kept, 400))
    X, codes = data.X[:50], np.ones(50, np.int64)
    assert window.vocabulary == alone.vocabulary
    assert_allclose(window.oracle().predict(X, codes), alone.oracle().predict(X, codes), rtol=0.0, atol=1e-9)
