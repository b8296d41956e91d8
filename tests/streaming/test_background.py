"""Models that are fitted while the learner reads on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import DecisionPoint, PolicyConfig
from engine.oracles import LightGBMOracle, make_learner
from engine.oracles.trees import TreesLearner
from engine.store import PolicyStore
from streaming.background import BackgroundThread
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from tests.streaming.samples import NAME, POINT, Clock, append, feedback, opened

TREES = {"kind": "trees", "every": 20, "trees": 5, "min_child": 2, "memory": 60}
ENGINE: DecisionPoint = POINT.engine().model_copy(
    update={"policy": PolicyConfig.model_validate({"oracle": TREES, "publish_interval": "1s"})}
)
LONG_S = 20.0  # for what comes within moments, or never


class Gate:
    """Fits of trees that are begun at once and end when they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.fits = 0
        self.error: Exception | None = None
        fit = TreesLearner.fit

        def slow(*arguments: Any) -> LightGBMOracle:
            self.fits += 1
            self.begun.release()
            assert self.open.wait(LONG_S)
            try:
                if self.error is not None:
                    raise self.error
                return fit(*arguments)
            finally:
                self.ended.release()

        monkeypatch.setattr(TreesLearner, "fit", slow)

    def finish(self) -> None:
        """Let the fit that is under way end, and wait for its result to be there."""
        self.open.set()
        assert self.ended.acquire(timeout=LONG_S)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


def role(log: EmbeddedLog, directory: Path, clock: Clock) -> LearnerRole:
    return LearnerRole(log, {NAME: ENGINE}, PolicyStore(directory / "policies"), directory / "learner", clock)


def fill(log: EmbeddedLog, start: int, stop: int) -> None:
    append(log, *(feedback(number, float(number % 3 == 0)) for number in range(start, stop)))


def settled(learner: LearnerRole, clock: Clock) -> None:
    """Step until the model that was fitted has taken over; its future is done moments after the fit."""
    for _ in range(1_000):
        clock.now_ms += 1_100
        learner.step()
        if isinstance(learner.points[NAME].policy.oracle, LightGBMOracle):
            return
        threading.Event().wait(0.01)
    raise AssertionError("the model never took over")


def model(learner: LearnerRole) -> bytes:
    oracle = learner.points[NAME].policy.oracle
    assert isinstance(oracle, LightGBMOracle)
    return oracle.text.encode()


def fitted_on(*numbers: int) -> bytes:
    """Return the trees of these feedbacks, fitted by a learner that waits for them."""
    learner = make_learner(ENGINE)
    X = np.stack([np.eye(2, dtype=np.float32)[number % 2] for number in numbers])
    rewards = np.array([float(number % 3 == 0) for number in numbers])
    learner.partial_fit(X, ["ab"[number % 2] for number in numbers], rewards)
    oracle = learner.oracle()
    assert isinstance(oracle, LightGBMOracle)
    return oracle.text.encode()


def test_feedback_is_read_and_policies_are_published_while_a_model_is_fitted(
    log: EmbeddedLog, tmp_path: Path, gate: Gate
) -> None:
    clock = Clock()
    learner = role(log, tmp_path, clock)
    for start in range(0, 50, 10):
        fill(log, start, start + 10)
        clock.now_ms += 3_000
        assert learner.step() == 10
    assert gate.begun.acquire(timeout=LONG_S)
    point = learner.points[NAME]
    assert learner.learned[NAME] == point.policy.learned == 50
    assert point.policy.oracle.kind == "linear"  # that of the time before the first fit, whole
    assert gate.fits == 1  # what fell due at 40 waits
    gate.finish()
    settled(learner, clock)
    assert model(learner) == fitted_on(*range(20))
    # What fell due meanwhile has begun, on all there is now.
    assert gate.begun.acquire(timeout=LONG_S)
    learner.close()


def test_an_error_of_the_fit_comes_up_in_a_step_and_nothing_is_lost(
    log: EmbeddedLog, tmp_path: Path, gate: Gate
) -> None:
    clock = Clock()
    learner = role(log, tmp_path, clock)
    fill(log, 0, 20)
    clock.now_ms += 3_000
    learner.step()
    fill(log, 20, 30)
    learner.step()
    gate.error = MemoryError("no room for trees")
    gate.finish()
    with pytest.raises(MemoryError, match="no room for trees"):
        settled(learner, clock)
    gate.error = None
    settled(learner, clock)  # from the checkpoint, as after any error
    assert learner.points[NAME].policy.learned == 30
    assert model(learner) == fitted_on(*range(20))
    learner.close()


def test_it_ends_in_the_middle_of_a_fit_and_the_next_one_fits_the_same(
    log: EmbeddedLog, tmp_path: Path, gate: Gate
) -> None:
    clock = Clock()
    learner = role(log, tmp_path, clock)
    fill(log, 0, 20)
    learner.step()
    assert gate.begun.acquire(timeout=LONG_S)
    fill(log, 20, 33)
    clock.now_ms += 3_000
    learner.step()
    learner.close()  # does not wait for the gate
    again = role(log, tmp_path, clock)
    fill(log, 33, 36)
    again.step()
    gate.open.set()
    settled(again, clock)
    assert model(again) == fitted_on(*range(20))
    assert again.points[NAME].policy.learned == 36
    assert again.learned[NAME] == 3  # the others are part of the checkpoint
    again.close()


def test_a_kill_in_the_middle_of_a_fit_costs_nothing_but_time(log: EmbeddedLog, tmp_path: Path, gate: Gate) -> None:
    clock = Clock()
    learner = role(log, tmp_path, clock)
    fill(log, 0, 20)
    clock.now_ms += 3_000
    learner.step()  # begins the fit, and checkpoints
    fill(log, 20, 30)
    learner.step()  # learned, and not checkpointed
    learner._consumer.close()
    again = role(log, tmp_path, clock)
    again.step()
    gate.open.set()
    settled(again, clock)
    assert model(again) == fitted_on(*range(20))
    assert again.points[NAME].policy.learned == 30
    again.close()


def test_work_that_has_not_begun_is_dropped_and_the_thread_ends() -> None:
    may, begun = threading.Event(), threading.Event()
    done: list[str] = []
    thread = BackgroundThread("test")

    def first() -> None:
        begun.set()
        assert may.wait(LONG_S)
        done.append("first")

    running, waiting = thread.submit(first), thread.submit(lambda: done.append("second"))
    assert begun.wait(LONG_S)
    ours = [other for other in threading.enumerate() if other.name == "test"]
    thread.close()
    may.set()
    running.result(LONG_S)
    for other in ours:
        other.join(LONG_S)
        assert not other.is_alive()
    assert waiting.cancelled()
    assert done == ["first"]
