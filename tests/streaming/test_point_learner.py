from __future__ import annotations

import pytest

from engine.config import DecisionPoint, FalconConfig, FloorConfig
from engine.records import MODE_LOGGING_ONLY, Alarm
from streaming.log import Record
from streaming.point_learner import PointLearner
from tests.streaming.samples import NAME, POINT, feedback

ENGINE = POINT.engine()
LATER_MS = 10_000  # more than the publishing interval


def in_epochs(*, wrapped: bool = False) -> DecisionPoint:
    exploration = FloorConfig(epsilon=0.1, inner=FalconConfig()) if wrapped else FalconConfig()
    return ENGINE.model_copy(update={"policy": ENGINE.policy.model_copy(update={"exploration": exploration})})


def learn(learner: PointLearner, *numbers: int) -> None:
    record = Record("feedback", 0, 0, 0, b"", b"")
    learner.learn([(record, feedback(number, float(number % 3 == 0))) for number in numbers])


@pytest.mark.parametrize("wrapped", [False, True])
def test_falcon_publishes_at_the_ends_of_its_epochs_alone(wrapped: bool) -> None:
    learner = PointLearner.fresh(NAME, in_epochs(wrapped=wrapped), now_ms=0)
    published = []
    for number in range(40):
        learn(learner, number)
        policy = learner.update(LATER_MS * (number + 1))
        if policy is not None:
            learner.published(LATER_MS * (number + 1))
            published.append(policy.learned)
    assert published == [1, 2, 4, 8, 16, 32]


def test_other_explorations_publish_whenever_something_was_learned() -> None:
    learner = PointLearner.fresh(NAME, ENGINE, now_ms=0)
    for number in range(5):
        learn(learner, number)
        policy = learner.update(LATER_MS * (number + 1))
        assert policy is not None
        assert policy.learned == number + 1
        learner.published(LATER_MS * (number + 1))
        assert learner.update(LATER_MS * (number + 1) + 5_000) is None


def test_an_epoch_that_ends_within_a_batch_ends_once_it_is_learned() -> None:
    learner = PointLearner.fresh(NAME, in_epochs(), now_ms=0)
    learn(learner, *range(13))
    first = learner.update(LATER_MS)
    assert first is not None
    assert first.learned == 13
    learner.published(LATER_MS)
    learn(learner, 13, 14)
    assert learner.update(2 * LATER_MS) is None  # 15 of 16
    learn(learner, 15)
    second = learner.update(3 * LATER_MS)
    assert second is not None
    assert second.learned == 16


def test_a_policy_of_an_epoch_that_could_not_be_published_is_offered_again() -> None:
    learner = PointLearner.fresh(NAME, in_epochs(), now_ms=0)
    learn(learner, 0)
    assert learner.update(LATER_MS) is not None
    again = learner.update(2 * LATER_MS)
    assert again is not None
    assert again.learned == 1


def test_an_alarm_within_an_epoch_explores_at_once_and_leaves_the_oracle_as_it_is() -> None:
    learner = PointLearner.fresh(NAME, in_epochs(), now_ms=0)
    learn(learner, *range(8))
    served = learner.update(LATER_MS)
    assert served is not None
    learner.published(LATER_MS)
    learn(learner, 8, 9)
    learner.alarm(Alarm(calls_for_retraining=True, detected_ms=5_000, mean_before=0.8, mean_after=0.4))
    explored = learner.update(LATER_MS + 1)
    assert explored is not None
    assert (explored.uniform_share, explored.learned) == (0.5, 8)
    assert explored.oracle is served.oracle
    learner.published(LATER_MS + 1)
    learn(learner, *range(10, 60))
    over = learner.update(2 * LATER_MS)
    assert over is not None
    assert (over.uniform_share, over.learned) == (0.0, 60)


def test_in_logging_only_nothing_is_learned_and_nothing_published() -> None:
    learner = PointLearner.fresh(NAME, ENGINE.model_copy(update={"mode": "logging_only"}), now_ms=0)
    learn(learner, *range(20))
    assert learner.policy.learned == 0
    assert learner.update(LATER_MS) is None


def test_online_again_what_was_logged_in_between_is_not_learned() -> None:
    learner = PointLearner.fresh(NAME, ENGINE, now_ms=0)
    entries = [feedback(number, 1.0) for number in range(10)]
    for entry in entries[:6]:
        entry.decision.mode = MODE_LOGGING_ONLY
    record = Record("feedback", 0, 0, 0, b"", b"")
    assert learner.learn([(record, entry) for entry in entries]) == 4
    policy = learner.update(LATER_MS)
    assert policy is not None
    assert policy.learned == 4
