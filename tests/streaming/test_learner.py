from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.config import DecisionPoint
from engine.oracles import LightGBMOracle, LinearLearner, LinearOracle
from engine.policy import Policy
from engine.records import Alarm, Feedback, Generation
from engine.store import PolicyStore
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from streaming.log import Message
from streaming.topics import ALARMS, GENERATIONS
from tests.streaming.samples import NAME, POINT, Clock, append, feedback, opened
from training.learner_file import learner_path, save_learner

ENGINE = POINT.engine()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies")


def role(log: EmbeddedLog, store: PolicyStore, clock: Clock, point: DecisionPoint = ENGINE) -> LearnerRole:
    return LearnerRole(log, {NAME: point}, store, store.root.parent / "learner", clock)


def serving(store: PolicyStore) -> Policy:
    version = store.current(NAME)
    assert version is not None
    return store.load(NAME, version)


def theta(policy: Policy) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert isinstance(policy.oracle, LinearOracle)
    return policy.oracle.theta


def learned_from(*numbers: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What a learner knows that saw these feedbacks, once each."""
    learner = LinearLearner(2)
    for number in numbers:
        side = number % 2
        learner.partial_fit(np.eye(2, dtype=np.float32)[[side]], ["ab"[side]], np.array([float(number % 3 == 0)]))
    return learner.oracle().theta


def fill(log: EmbeddedLog, *numbers: int) -> None:
    append(log, *(feedback(number, float(number % 3 == 0)) for number in numbers))


def test_there_is_a_policy_to_serve_before_anything_was_learned(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    role(log, store, clock)
    assert (serving(store).generation, serving(store).learned) == (0, 0)


def test_it_learns_each_feedback_once_and_publishes_in_intervals(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(40))
    learner.step()
    assert serving(store).learned == 0  # the interval has not passed
    clock.now_ms += 1_000
    learner.step()
    assert serving(store).learned == 40
    np.testing.assert_allclose(theta(serving(store)), learned_from(*range(40)), atol=1e-12)
    before = store.current(NAME)
    clock.now_ms += 5_000
    learner.step()
    assert store.current(NAME) == before  # nothing new, nothing published


def test_a_restart_goes_on_from_the_checkpoint_as_if_nothing_had_happened(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    first = role(log, store, clock)
    fill(log, *range(20))
    clock.now_ms += 3_000
    first.step()  # checkpoints
    fill(log, *range(20, 30))
    first.step()  # learned, not yet checkpointed: the crash takes it
    first._consumer.close()
    second = role(log, store, clock)
    fill(log, *range(30, 40))
    clock.now_ms += 3_000
    second.step()
    assert serving(store).learned == 40
    np.testing.assert_allclose(theta(serving(store)), learned_from(*range(40)), atol=1e-12)


def test_a_damaged_checkpoint_costs_time_and_no_knowledge(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = role(log, store, clock)
    fill(log, *range(30))
    clock.now_ms += 3_000
    first.step()
    first.close()
    path = tmp_path / "learner" / "learner.npz"
    path.write_bytes(path.read_bytes()[:200])
    with caplog.at_level(logging.ERROR):
        second = role(log, store, clock)
    assert "damaged checkpoint" in caplog.text
    clock.now_ms += 3_000
    second.step()
    np.testing.assert_allclose(theta(serving(store)), learned_from(*range(30)), atol=1e-12)


def test_another_schema_starts_afresh_and_counts_generations_on(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    first = role(log, store, clock)
    promote(log, store, generation=2)
    first.step()
    first.close()
    wider = DecisionPoint.model_validate({"context": {"x": {"type": "vector", "size": 3}}})
    role(log, store, clock, wider)
    assert (serving(store).generation, serving(store).learned) == (2, 0)
    assert serving(store).encoder.width == 3


def test_the_same_features_in_another_order_are_another_schema(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    """Their columns change places: what was learned of one must not be applied to another."""
    names = {"x": {"type": "vector", "size": 2}, "y": {"type": "number"}}
    first = role(log, store, clock, DecisionPoint.model_validate({"context": names}))
    append(log, *(with_both(n) for n in range(20)))
    clock.now_ms += 3_000
    first.step()
    assert serving(store).learned == 20
    first.close()
    reordered = {name: names[name] for name in reversed(names)}
    role(log, store, clock, DecisionPoint.model_validate({"context": reordered}))
    assert serving(store).learned == 0


def with_both(number: int) -> Feedback:
    made = feedback(number, 1.0)
    made.decision.context.packed = struct.pack("<3f", 1.0, 0.0, 0.5)
    return made


# ---- promotions


def promote(
    log: EmbeddedLog, store: PolicyStore, *, generation: int = 1, window_end_ms: int = 0, trees: bool = False
) -> Policy:
    """Write what a retraining writes: files, then the entry in the ledger."""
    learner = LinearLearner(2)
    learner.partial_fit(np.eye(2, dtype=np.float32), ["a", "b"], np.array([1.0, 0.0]))
    oracle = LightGBMOracle(trees_text()) if trees else learner.oracle()
    policy = Policy(NAME, ENGINE, ("a", "b"), oracle, generation, 0, 2, 0)
    store.save(policy)
    if not trees:
        save_learner(learner_path(store, NAME, policy.version), learner)
    entry = Generation(
        decision_point=NAME,
        generation=generation,
        policy_version=policy.version,
        promoted=True,
        window_end_ms=window_end_ms,
    )
    log.append([Message(GENERATIONS, NAME.encode(), entry.SerializeToString(), 0)])
    return policy


def trees_text() -> str:
    import lightgbm

    X = np.random.default_rng(0).random((40, 3))
    data = lightgbm.Dataset(X, X[:, 0], params={"verbosity": -1})
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}, data, 2)
    return str(booster.model_to_string())


def test_a_promoted_generation_serves_at_once_and_goes_on_learning(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    learner = role(log, store, clock)
    policy = promote(log, store, window_end_ms=1_010)
    learner.step()
    assert store.current(NAME) == policy.version
    fill(log, *range(30))  # decisions 0 to 10 belong to the window that the generation was trained on
    clock.now_ms += 1_000
    learner.step()
    assert (serving(store).generation, serving(store).update, serving(store).learned) == (1, 1, 2 + 19)


def test_trees_serve_as_they_were_trained(log: EmbeddedLog, store: PolicyStore, clock: Clock) -> None:
    learner = role(log, store, clock)
    policy = promote(log, store, trees=True)
    fill(log, *range(30))
    clock.now_ms += 5_000
    learner.step()
    assert store.current(NAME) == policy.version


def test_an_older_or_refused_generation_changes_nothing(log: EmbeddedLog, store: PolicyStore, clock: Clock) -> None:
    learner = role(log, store, clock)
    newest = promote(log, store, generation=3)
    promote(log, store, generation=2)
    refused = Generation(decision_point=NAME, generation=4, policy_version="g4.0-00000000", promoted=False)
    log.append([Message(GENERATIONS, NAME.encode(), refused.SerializeToString(), 0)])
    learner.step()
    assert store.current(NAME) == newest.version


def test_a_generation_whose_file_is_gone_leaves_the_serving_one(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    learner = role(log, store, clock)
    before = store.current(NAME)
    policy = promote(log, store)
    store.path(NAME, policy.version).unlink()
    with caplog.at_level(logging.ERROR):
        learner.step()
    assert store.current(NAME) == before
    assert "no such policy file" in caplog.text


# ---- alarms


def alarm(log: EmbeddedLog, before: float, after: float, *, calls: bool = True, detected_ms: int = 5_000) -> None:
    record = Alarm(
        decision_point=NAME, mean_before=before, mean_after=after, calls_for_retraining=calls, detected_ms=detected_ms
    )
    log.append([Message(ALARMS, NAME.encode(), record.SerializeToString(), detected_ms)])


@pytest.mark.parametrize(
    ("before", "after", "share"), [(0.8, 0.6, 0.25), (0.9, 0.0, 0.5), (0.4, 0.3, 0.25)], ids=["part", "capped", "small"]
)
def test_an_alarm_adds_exploration_by_the_share_of_reward_lost(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, before: float, after: float, share: float
) -> None:
    learner = role(log, store, clock)
    alarm(log, before, after)
    learner.step()
    assert serving(store).uniform_share == pytest.approx(share)


def test_an_alarm_that_does_not_call_for_retraining_adds_none(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    learner = role(log, store, clock)
    alarm(log, 0.9, 0.5, calls=False)
    clock.now_ms += 5_000
    learner.step()
    assert serving(store).uniform_share == 0.0


def test_the_exploration_of_an_alarm_survives_a_restart_and_ends_after_its_feedbacks(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    first = role(log, store, clock)
    alarm(log, 0.8, 0.6)
    first.step()
    first.close()
    second = role(log, store, clock)
    fill(log, *range(49))
    clock.now_ms += 1_000
    second.step()
    assert serving(store).uniform_share == pytest.approx(0.25)
    fill(log, 49)
    clock.now_ms += 1_000
    second.step()
    assert serving(store).uniform_share == 0.0


def test_a_promotion_ends_the_exploration_and_older_alarms_do_not_start_it_again(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    learner = role(log, store, clock)
    alarm(log, 0.8, 0.2)
    learner.step()
    promote(log, store, window_end_ms=6_000)
    learner.step()
    assert serving(store).uniform_share == 0.0
    alarm(log, 0.8, 0.2, detected_ms=5_500)
    clock.now_ms += 5_000
    learner.step()
    assert serving(store).uniform_share == 0.0
