from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SnapshotError
from engine.records import DIRECTION_DOWN, DIRECTION_UP, Alarm, Feedback
from monitoring.config import RewardMonitorConfig
from monitoring.reward import RewardMonitor, uniform
from tests.monitoring.learner import CLASSES, RidgeLearner, feedback

#: Alarms after a few feedbacks.
EAGER = RewardMonitorConfig(weight_scale=0.05, weight_exponent=0.5, cooldown=20, max_candidates=32)


def monitor(config: RewardMonitorConfig | None = None) -> RewardMonitor:
    return RewardMonitor("offers", (0.0, 1.0), config)


def watch(watcher: RewardMonitor, stream: Iterable[Feedback]) -> list[Alarm]:
    return [alarm for item in stream if (alarm := watcher.update(item)) is not None]


def stationary(seed: int, start: int, length: int, rate: float, score: float | None) -> Iterator[Feedback]:
    rng = np.random.default_rng(seed)
    for number in range(start, start + length):
        yield feedback(number, float(rng.random() < rate), None if score is None else [score])


def test_drop_calls_for_retraining_once_soon_and_says_when_and_why() -> None:
    misplaced = 0
    for seed in range(25):
        watcher = monitor()
        assert watch(watcher, stationary(seed, 0, 1000, 0.9, 0.9)) == []
        alarms = watch(watcher, stationary(seed + 100, 1000, 600, 0.2, 0.9))
        (call,) = [alarm for alarm in alarms if alarm.calls_for_retraining]
        assert call is alarms[0]
        assert 1000 < call.feedback_seen <= 1060
        assert call.detected_ms == 1_000 * (call.feedback_seen - 1)
        misplaced += abs(call.change_ms - 1_000_000) > 10_000
        assert call.direction == DIRECTION_DOWN
        assert call.mean_before > 0.85 > 0.65 > call.mean_after
        assert call.count_before + call.count_after == call.feedback_seen
        assert call.evidence > 0
        assert "drifted" in call.explanation or "large enough" in call.explanation
    assert misplaced <= 2


def test_stationary_reward_calls_for_nothing() -> None:
    for seed in range(20):
        assert watch(monitor(), stationary(seed, 0, 2000, 0.9, 0.9)) == []


def test_learning_is_not_drift_and_drift_after_learning_is() -> None:
    """An online ridge learner comes from 0.1 to 0.9 and reports its rises; then the labels change their meaning."""
    for seed in range(20):
        learner, watcher = RidgeLearner(seed), monitor()
        first = list(learner.run(3000))
        alarms = watch(watcher, first)
        assert np.mean([item.reward for item in first[-300:]]) > 0.8
        assert len(alarms) >= 2  # the monitor does see it learn
        assert not any(alarm.calls_for_retraining for alarm in alarms)
        learner.meaning = np.roll(learner.meaning, 3)
        later = watch(watcher, learner.run(60))
        assert [alarm.calls_for_retraining for alarm in later[:1]] == [True]
        assert not any(alarm.calls_for_retraining for alarm in later[1:])  # a better estimate of the same drift
        assert abs(later[0].change_ms - 3_000_000) <= 20_000


def test_more_exploration_is_a_fall_that_its_predictions_explain() -> None:
    falls = 0
    for seed in range(6):
        learner, watcher = RidgeLearner(seed), monitor()
        watch(watcher, learner.run(3000))
        alarms = watch(watcher, learner.run(200, uniform_share=0.7))
        falls += sum(alarm.direction == DIRECTION_DOWN for alarm in alarms)
        assert not any(alarm.calls_for_retraining for alarm in alarms)
        assert all("predictions account for it" in alarm.explanation for alarm in alarms)
    assert falls >= 6


def test_rise_is_reported_and_does_not_call() -> None:
    watcher = monitor()
    watch(watcher, stationary(1, 0, 500, 0.1, 0.1))
    (alarm,) = watch(watcher, stationary(2, 500, 100, 0.9, 0.1))
    assert alarm.direction == DIRECTION_UP
    assert not alarm.calls_for_retraining
    assert "rose" in alarm.explanation


def test_without_scores_a_large_fall_calls_and_a_small_one_does_not() -> None:
    for rate, calls in ((0.3, True), (0.78, False)):
        watcher = monitor()
        watch(watcher, stationary(1, 0, 2000, 0.9, None))
        alarms = watch(watcher, stationary(2, 2000, 500, rate, None))
        assert alarms[0].direction == DIRECTION_DOWN
        assert alarms[0].calls_for_retraining is calls


def test_one_drift_is_one_call_within_the_cool_down() -> None:
    watcher = monitor(RewardMonitorConfig(cooldown=300))
    watch(watcher, stationary(1, 0, 1000, 0.95, 0.95))
    steps = [*stationary(2, 1000, 100, 0.6, 0.95), *stationary(3, 1100, 100, 0.1, 0.95)]
    alarms = watch(watcher, steps)
    assert [alarm.calls_for_retraining for alarm in alarms] == [True, False]
    assert "not again" in alarms[1].explanation
    # Long after, a new drift calls again.
    watch(watcher, stationary(4, 1200, 600, 0.9, 0.9))
    again = watch(watcher, stationary(5, 1800, 60, 0.1, 0.9))
    assert [alarm.calls_for_retraining for alarm in again] == [True]


def test_change_that_is_older_than_the_last_call_does_not_call_again() -> None:
    """Learner 14: the first estimate of the change is a little early, and a second alarm corrects it after 240."""
    learner, watcher = RidgeLearner(14), monitor(RewardMonitorConfig(weight_scale=2.5e-7, weight_exponent=1.0))
    watch(watcher, learner.run(4000))
    learner.meaning = np.roll(learner.meaning, 3)
    alarms = watch(watcher, learner.run(400))
    assert [alarm.calls_for_retraining for alarm in alarms] == [True, False]
    assert alarms[1].feedback_seen - alarms[0].feedback_seen > RewardMonitorConfig().cooldown


def test_alarm_speaks_in_units_of_the_reward() -> None:
    watcher = RewardMonitor("offers", (-5.0, 15.0))
    rng = np.random.default_rng(0)
    watch(watcher, (feedback(n, rng.uniform(8.0, 12.0), [10.0]) for n in range(1500)))
    (alarm,) = watch(watcher, (feedback(n, rng.uniform(-4.0, 0.0), [10.0]) for n in range(1500, 1560)))
    assert alarm.mean_before == pytest.approx(10.0, abs=0.2)
    assert alarm.mean_after < 6.0
    assert alarm.calls_for_retraining
    assert alarm.change_ms == pytest.approx(1_500_000, abs=20_000)


def test_binary_rewards_pass_as_they_are_and_others_by_their_mean() -> None:
    """A constant reward in the middle counts as a one with its probability: stationary, and no alarm."""
    numbers = [uniform(f"d{n}") for n in range(4000)]
    assert 0.0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1.0
    assert np.mean(np.array(numbers) < 0.3) == pytest.approx(0.3, abs=0.03)
    assert watch(monitor(), (feedback(n, 0.3, [0.3]) for n in range(3000))) == []
    (alarm,) = watch(monitor(), (feedback(n, 0.45 if n < 1500 else 0.05, [0.45]) for n in range(1700)))
    assert alarm.mean_before == pytest.approx(0.45, abs=0.02)
    watcher = monitor()
    (alarm,) = watch(watcher, (feedback(n, float(n >= 200), [0.5]) for n in range(230)))
    assert (alarm.count_before, alarm.mean_before, alarm.mean_after) == (200, 0.0, 1.0)


def test_a_replay_raises_the_same_alarms() -> None:
    stream = list(RidgeLearner(3).run(1500))
    first, second = watch(monitor(), stream), watch(monitor(), stream)
    assert first
    assert first == second
    assert len({alarm.alarm_id for alarm in first}) == len(first)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), max_size=150), st.data())
def test_restored_monitor_goes_on_bit_for_bit(rewards: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(rewards)))
    stream = [feedback(n, reward, [0.6] if n % 5 else None) for n, reward in enumerate(rewards)]
    kept = monitor(EAGER)
    watch(kept, stream[:cut])
    restored = RewardMonitor.load(kept.save(), "offers", (0.0, 1.0), EAGER)
    assert restored.save() == kept.save()
    assert (restored.seen, restored.run_length) == (kept.seen, kept.run_length)
    assert watch(restored, stream[cut:]) == watch(kept, stream[cut:])
    assert restored.save() == kept.save()


def test_cool_down_outlives_a_restart() -> None:
    config = RewardMonitorConfig(cooldown=300)
    watcher = monitor(config)
    watch(watcher, stationary(1, 0, 1000, 0.95, 0.95))
    (call,) = watch(watcher, stationary(2, 1000, 100, 0.6, 0.95))
    assert call.calls_for_retraining
    restored = RewardMonitor.load(watcher.save(), "offers", (0.0, 1.0), config)
    (again,) = watch(restored, stationary(3, 1100, 100, 0.1, 0.95))
    assert not again.calls_for_retraining


def test_memory_and_saved_state_are_bounded() -> None:
    watcher = monitor(RewardMonitorConfig(max_candidates=64))
    watch(watcher, stationary(0, 0, 500, 0.9, 0.9))
    early = len(watcher.save())
    watch(watcher, stationary(1, 500, 2000, 0.9, 0.9))
    assert len(watcher.save()) < 1.5 * early
    (alarm,) = watch(watcher, stationary(2, 2500, 60, 0.1, 0.9))
    assert alarm.calls_for_retraining
    assert alarm.mean_before == pytest.approx(0.9, abs=0.03)


def test_saved_state_of_another_stream_or_damaged_bytes_are_refused() -> None:
    watcher = monitor()
    watch(watcher, stationary(0, 0, 50, 0.9, 0.9))
    data = watcher.save()
    with pytest.raises(SnapshotError, match="'offers'"):
        RewardMonitor.load(data, "other", (0.0, 1.0))
    with pytest.raises(SnapshotError, match="range"):
        RewardMonitor.load(data, "offers", (0.0, 2.0))
    with pytest.raises(SnapshotError, match="damaged"):
        RewardMonitor.load(data[:-3], "offers", (0.0, 1.0))


@pytest.mark.parametrize("chosen", [-1, 3])
def test_choice_outside_the_scores_is_no_residual(chosen: int) -> None:
    watcher = monitor()
    assert watcher.update(feedback(0, 1.0, [0.5, 0.5], chosen=chosen)) is None


def test_feedback_that_cannot_be_watched_is_refused() -> None:
    with pytest.raises(ValueError, match="'offers'"):
        RewardMonitor("other", (0.0, 1.0)).update(feedback(0, 1.0))
    with pytest.raises(ValueError, match="finite"):
        monitor().update(feedback(0, float("nan")))
    with pytest.raises(ValueError, match="reward_range"):
        RewardMonitor("offers", (1.0, 1.0))


def test_the_learner_of_these_tests_learns_from_nothing() -> None:
    rewards = [item.reward for item in RidgeLearner(0).run(3000)]
    assert np.mean(rewards[:50]) < 2.5 / CLASSES
    assert np.mean(rewards[-300:]) > 0.85


def test_belief_in_a_change_grows_until_it_is_reported() -> None:
    """A fall that is still too short for an alarm is seen in the posterior; after the alarm it begins anew."""
    watcher = monitor()
    assert watcher.change_probability < 1e-9
    watch(watcher, stationary(1, 0, 1000, 0.9, 0.9))
    quiet = watcher.change_probability
    believed, alarms = [], 0
    for item in stationary(101, 1000, 60, 0.2, 0.9):
        alarms += watcher.update(item) is not None
        if alarms:
            break
        believed.append(watcher.change_probability)
    assert alarms == 1
    assert quiet < 0.01 < max(believed) < 0.5
    assert watcher.change_probability < 0.5
