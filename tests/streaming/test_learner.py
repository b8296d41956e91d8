from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import DecisionPoint, FloorConfig
from engine.errors import LogError, SnapshotError
from engine.oracles import LightGBMOracle, LinearLearner, LinearOracle
from engine.oracles.mixture import follow
from engine.policy import Policy
from engine.records import Alarm, Feedback, Generation, Value
from engine.store import PolicyStore
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from streaming.log import Message, Record
from streaming.topics import ALARMS, FEEDBACK, GENERATIONS
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


@pytest.mark.parametrize("damped", ["mixture", "floor"])
def test_a_damped_generation_serves_as_it_was_proved_through_alarms_and_restarts(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, damped: str
) -> None:
    learner = role(log, store, clock)
    policy = promote(log, store)
    if damped == "mixture":
        oracle, vocabulary = follow(policy.oracle, policy.vocabulary, policy.oracle, policy.vocabulary, share=0.5)
        policy = replace(policy, oracle=oracle, vocabulary=vocabulary, generation=2)
    else:
        exploration = FloorConfig(inner=ENGINE.policy.exploration)
        damping = ENGINE.policy.model_copy(update={"exploration": exploration})
        policy = replace(policy, point=ENGINE.model_copy(update={"policy": damping}), generation=2)
    store.save(policy)
    entry = Generation(decision_point=NAME, generation=2, policy_version=policy.version, promoted=True)
    log.append([Message(GENERATIONS, NAME.encode(), entry.SerializeToString(), 0)])
    learner.step()
    assert store.current(NAME) == policy.version
    fill(log, *range(30))
    clock.now_ms += 5_000
    learner.step()
    assert store.current(NAME) == policy.version
    alarm(log, 0.8, 0.4)
    learner.step()
    clock.now_ms += 5_000
    learner.step()
    exploring = serving(store)
    assert (exploring.generation, exploring.uniform_share) == (2, 0.5)
    assert exploring.point == policy.point
    learner.close()
    again = role(log, store, clock)
    again.step()
    assert serving(store).point == policy.point


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


# ---- records by another hand, and errors while it learns


def spoilt(number: int, spoil: Callable[[Feedback], None]) -> Feedback:
    made = feedback(number, 1.0)
    made.decision.decision_id = "spoilt"
    spoil(made)
    return made


def set_to(path: str, value: object) -> Callable[[Feedback], None]:
    def spoil(made: Feedback) -> None:
        setattr(made if path == "reward" else made.decision, path, value)

    return spoil


def set_probabilities(*values: float) -> Callable[[Feedback], None]:
    def spoil(made: Feedback) -> None:
        made.decision.probabilities[:] = values

    return spoil


def without_actions(made: Feedback) -> None:
    made.decision.ClearField("actions")
    made.decision.ClearField("probabilities")


def with_short_context(made: Feedback) -> None:
    made.decision.context.packed = b"abc"


def with_text_for_a_vector(made: Feedback) -> None:
    made.decision.context.packed = b""
    made.decision.context.named["x"].CopyFrom(Value(text="abc"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (set_to("chosen", 99), "chosen is 99, but there are 2 actions"),
        (set_to("chosen", -1), "chosen is -1, but there are 2 actions"),
        (without_actions, "chosen is 0, but there are 0 actions"),
        (set_probabilities(), "has 0 entries for 2 actions"),
        (set_probabilities(0.5, 0.25, 0.25), "has 3 entries for 2 actions"),
        (set_probabilities(float("nan"), 0.5), "sum nan"),
        (set_probabilities(-0.5, 1.5), "least -0.5"),
        (set_probabilities(0.0, 1.0), "the chosen action has probability 0.0"),
        (set_to("reward", float("nan")), "reward is nan"),
        (set_to("reward", 1e300), "reward is 1e+300"),
        (set_to("time_ms", -5), "time_ms is -5"),
        (set_to("fallback", 77), "fallback is 77"),
        (set_to("packed_actions", b"abc"), "packed_actions"),
        (with_short_context, "context.packed"),
        (with_text_for_a_vector, "must be a list of numbers"),
    ],
)
def test_a_feedback_that_cannot_be_learned_is_named_and_left_out_alone(
    log: EmbeddedLog,
    store: PolicyStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Feedback], None],
    problem: str,
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(20))
    append(log, spoilt(20, spoil))
    fill(log, *range(20, 40))
    clock.now_ms += 1_000
    learner.step()
    assert serving(store).learned == 40
    np.testing.assert_allclose(theta(serving(store)), learned_from(*range(40)), atol=1e-12)
    (line,) = (record.message for record in caplog.records if record.levelno == logging.ERROR)
    partition, offset = where_is(log, b"spoilt")
    assert f"{FEEDBACK}/{partition}@{offset}" in line
    assert "'spoilt'" in line
    assert problem in line


def where_is(log: EmbeddedLog, key: bytes) -> tuple[int, int]:
    """Return partition and offset of the feedback with a key."""
    for partition in log.ends(FEEDBACK):
        for record in log.read(FEEDBACK, partition):
            if record.key == key:
                return record.partition, record.offset
    raise AssertionError(f"no feedback {key!r}")


@pytest.mark.parametrize(("topic", "name"), [(ALARMS, "alarm"), (GENERATIONS, "generation"), (FEEDBACK, "feedback")])
def test_foreign_bytes_are_named_and_what_stands_beside_them_is_learned(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, caplog: pytest.LogCaptureFixture, topic: str, name: str
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(40))
    log.append([Message(topic, None, b"\x00\xffgarbage", 0)])
    offset = log.ends(topic)[0] - 1
    clock.now_ms += 1_000
    learner.step()
    assert serving(store).learned == 40
    assert f"{topic}/0@{offset} is no {name}; skipped" in caplog.text


def test_a_generation_for_other_features_is_not_served(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    other = DecisionPoint.model_validate({"context": {"x": {"type": "vector", "size": 3}}})
    learner = role(log, store, clock, other)
    before = store.current(NAME)
    promote(log, store)
    learner.step()
    assert store.current(NAME) == before
    assert "was trained for other features" in caplog.text


@pytest.mark.parametrize("learned", [False, True], ids=["before", "after"])
def test_an_error_while_learning_loses_and_repeats_nothing(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(20))
    clock.now_ms += 3_000
    learner.step()  # checkpoints
    fill(log, *range(20, 30))
    learner.step()  # is learned and not checkpointed
    fill(log, *range(30, 40))
    with monkeypatch.context() as patch:
        patch.setattr(learner, "_learn", raising_after(learner._learn) if learned else raising_after(lambda _: None))
        for _ in range(3):
            with pytest.raises(RuntimeError, match="out of the blue"):
                learner.step()
    clock.now_ms += 1_000
    learner.step()
    assert serving(store).learned == 40
    np.testing.assert_allclose(theta(serving(store)), learned_from(*range(40)), atol=1e-12)


def test_what_was_half_learned_is_not_checkpointed_at_the_end(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(40))
    monkeypatch.setattr(learner, "_learn", raising_after(learner._learn))
    with pytest.raises(RuntimeError, match="out of the blue"):
        learner.step()
    learner.close()
    again = role(log, store, clock)
    clock.now_ms += 1_000
    again.step()
    assert serving(store).learned == 40


def test_what_the_log_gave_before_it_failed_is_read_again(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = role(log, store, clock)
    learner.step()
    fill(log, *range(40))
    consumer = learner._consumer
    read = consumer.poll

    def lose(max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        read(max_records, timeout_s)
        raise LogError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(consumer, "poll", lose)
        with pytest.raises(LogError, match="connection lost"):
            learner.step()
    clock.now_ms += 1_000
    learner.step()
    assert serving(store).learned == 40


def test_a_policy_that_could_not_be_published_is_published_when_it_can(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = role(log, store, clock)
    fill(log, *range(40))
    clock.now_ms += 1_000
    with monkeypatch.context() as patch:

        def refuse(_policy: Policy) -> None:
            raise SnapshotError("disk full")

        patch.setattr(store, "publish", refuse)
        with pytest.raises(SnapshotError, match="disk full"):
            learner.step()
    learner.step()
    assert serving(store).learned == 40


def test_features_of_any_size_leave_the_regression_a_solution(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    """Two features of 1e9 leave nothing of the ridge beside them: it grows with them."""
    learner = role(log, store, clock)
    fill(log, *range(10))
    learner.step()
    huge = feedback(10, 1.0)
    huge.decision.context.packed = struct.pack("<2f", 1e9, 1e9)
    append(log, huge)
    clock.now_ms += 3_000
    assert learner.step() == 1
    assert serving(store).learned == 11
    assert np.isfinite(theta(serving(store))).all()


def raising_after(learn: Callable[..., None]) -> Callable[..., None]:
    """Return what learns and then fails."""

    def fail(*arguments: object) -> None:
        learn(*arguments)
        raise RuntimeError("out of the blue")

    return fail
