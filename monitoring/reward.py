"""The reward monitor: R-BOCPD on the rewards of one decision point, in the order of the log."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from engine.errors import SnapshotError
from engine.records import DIRECTION_DOWN, DIRECTION_UP, Alarm, Decision, Feedback
from monitoring.config import RewardMonitorConfig
from monitoring.detector import Change, IntArray
from monitoring.draws import seed, seeds, to_unit
from monitoring.rbocpd import RBOCPD
from monitoring.reactions import numbers, probability, remedy
from monitoring.state import decode, encode
from monitoring.trail import Split, Trail
from monitoring.verdict import Finding, accounted_for, judge
from monitoring.weights import AnyWeight, ShapedWeight

MONITOR = "reward"

_KIND = "reward-monitor/3"
#: Positions remembered before those that the detector does not hold any more are dropped.
_MOST_ROWS = 256


class RewardMonitor:
    """Watches the mean reward of one decision point; pure: feedback in, alarms out.

    A reward within its range becomes a one with probability (reward - low) / (high - low), by a number that is a
    function of the decision id, so that a replay of the log gives the same alarms. Rewards at the ends of the range
    pass as they are. The means in an alarm are those of the rewards themselves.

    An alarm **calls for retraining** iff the reward fell by more than the policy's own predictions said it would
    (``monitoring.verdict``), it changed after the last call was made, and that call lies more than ``cooldown``
    feedbacks back: one drift is one call, though its alarms may be several. All other changes are reported too, with
    the reason why they do not call.

    Parameters
    ----------
    decision_point
        Its name; feedback of another one is refused.
    reward_range
        Declared least and greatest reward.
    config
        Weight of the detector, least effect, cool-down, memory.
    """

    def __init__(
        self, decision_point: str, reward_range: tuple[float, float], config: RewardMonitorConfig | None = None
    ) -> None:
        low, high = reward_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"reward_range {reward_range} must be two finite numbers in ascending order")
        self._config = config or RewardMonitorConfig()
        self._point = decision_point
        self._low, self._high = low, high
        self._detector = RBOCPD(self._config.weight, max_candidates=self._config.max_candidates)
        self._trail = Trail()
        self._called_at: int | None = None  # feedbacks seen when retraining was last called for

    @property
    def seen(self) -> int:
        """Feedbacks so far."""
        return self._detector.seen

    @property
    def weight(self) -> AnyWeight:
        """The weight of the detector, which sets its false-alarm level."""
        return self._detector.scan.weight

    @property
    def run_length(self) -> int:
        """Feedbacks since the last change."""
        return self._detector.run_length

    @property
    def change_probability(self) -> float:
        """Posterior probability of the most probable change since the last one that was reported, against none."""
        return probability(self._detector.statistic())

    def update(self, feedback: Feedback) -> Alarm | None:
        """Take the next feedback; return the alarm that it raises, if any."""
        alarms = self.update_many([feedback])
        return alarms[0] if alarms else None

    def update_many(self, batch: Sequence[Feedback], ones: IntArray | None = None) -> list[Alarm]:
        """Take feedback in a row; return the alarms that it raises. The same as one ``update`` after another.

        Parameters
        ----------
        batch
            Feedback of this decision point. Raises ``ValueError`` if any of it is not; then none was taken.
        ones
            The rewards as zeros and ones, where something that was expected is taken out of them.
        """
        for feedback in batch:
            point, reward = feedback.decision.decision_point, feedback.reward
            if point != self._point:
                raise ValueError(f"feedback of {point!r} given to the monitor of {self._point!r}")
            if not math.isfinite(reward):
                raise ValueError(
                    f"reward {reward} of decision {feedback.decision.decision_id!r} is not a finite number"
                )
        width = self._high - self._low
        shares = (np.array([feedback.reward for feedback in batch], np.float64) - self._low) / width
        residuals = np.array([self._residual(feedback) for feedback in batch], np.float64)
        times = np.array([feedback.decision.time_ms for feedback in batch], np.int64)
        if ones is None:
            draws = to_unit(seeds(feedback.decision.decision_id for feedback in batch))
            ones = (draws < shares).astype(np.int64)
        first = self.seen
        self._trail.add(times, shares, residuals)
        alarms = []
        for change in self._detector.update_many(ones):
            split = self._trail.split(change.index - change.count_before, change.index, change.detected + 1)
            alarms.append(self._alarm(change, split, batch[change.detected - first].decision))
        if len(self._trail) > _MOST_ROWS:
            self._trail.keep(self._detector.starts)
        return alarms

    def set_level(self, level: ShapedWeight) -> None:
        """Go on with another false-alarm level."""
        self._detector = RBOCPD.load(self._detector.save(), level)

    def _residual(self, feedback: Feedback) -> float:
        """Reward minus predicted reward, as a share of the range; NaN in a fallback, which has no scores."""
        decision = feedback.decision
        if not 0 <= decision.chosen < len(decision.scores):
            return math.nan
        residual = (feedback.reward - decision.scores[decision.chosen]) / (self._high - self._low)
        return residual if math.isfinite(residual) else math.nan

    def _alarm(self, change: Change, split: Split, decision: Decision) -> Alarm:
        before, after = split.residuals_before, split.residuals_after
        fall = split.mean_before - split.mean_after
        finding = judge(fall, before, after, self._config.min_effect)
        seen = change.detected + 1
        reacts = bool(self._config.reactions) and finding.calls_for_retraining
        acts = reacts and not self._called_before(change)
        calls = acts and "retrain" in self._config.reactions
        mean_before, mean_after = self._unscaled(split.mean_before), self._unscaled(split.mean_after)
        explanation = (
            f"The mean reward {'fell' if fall > 0 else 'rose'} from {mean_before:.3g} ({change.count_before} feedbacks)"
            f" to {mean_after:.3g} ({change.count_after}); {finding.value}."
        )
        if before.count and after.count:
            width = self._high - self._low
            residuals = f"{before.mean * width:+.3g} before, {after.mean * width:+.3g} after"
            explanation += f" Mean residual (reward minus prediction): {residuals}."
        if calls:
            explanation += " Retraining is called for."
        elif reacts and not acts:
            explanation += f" Retraining was called for {seen - (self._called_at or 0)} feedbacks ago, so not again."
        if acts:
            self._called_at = seen
        explained = finding is Finding.FALL_PREDICTED or (
            finding is Finding.ROSE and accounted_for(-fall, before, after)
        )
        return Alarm(
            alarm_id=hashlib.blake2b(f"{MONITOR}\0{decision.decision_id}".encode(), digest_size=16).hexdigest(),
            decision_point=self._point,
            monitor=MONITOR,
            detected_ms=decision.time_ms,
            change_ms=split.change_ms,
            mean_before=mean_before,
            mean_after=mean_after,
            count_before=change.count_before,
            count_after=change.count_after,
            evidence=change.evidence,
            direction=DIRECTION_DOWN if fall > 0 else DIRECTION_UP,
            calls_for_retraining=calls,
            explanation=explanation,
            feedback_seen=seen,
            effect=abs(fall),
            probability=probability(change.evidence),
            explained=explained,
            reactions=numbers(self._config.reactions) if acts else [],
            remedy=remedy(MONITOR, explained=explained, calls=calls),
        )

    def _called_before(self, change: Change) -> bool:
        """Whether the last call for retraining covers this change: the cool-down runs, or the change is older."""
        if self._called_at is None:
            return False
        return change.index < self._called_at or change.detected + 1 <= self._called_at + self._config.cooldown

    def _unscaled(self, share: float) -> float:
        return self._low + share * (self._high - self._low)

    def save(self) -> bytes:
        """Return the whole state, the configuration apart."""
        fields = {
            "decision_point": self._point,
            "low": self._low,
            "high": self._high,
            "called_at": self._called_at,
            **self._trail.fields(),
        }
        detector = np.frombuffer(self._detector.save(), np.uint8)
        return encode(_KIND, fields, {"detector": detector, **self._trail.columns()})

    @classmethod
    def load(
        cls,
        data: bytes,
        decision_point: str,
        reward_range: tuple[float, float],
        config: RewardMonitorConfig | None = None,
        level: ShapedWeight | None = None,
    ) -> Self:
        """Return the monitor that ``save`` wrote, under the configuration of now, or under a ``level`` of its own.

        Raises ``SnapshotError`` where the bytes are damaged, or are of another decision point or reward range: what
        was learned about the old stream says nothing about the new one, so begin with a new monitor.
        """
        monitor = cls(decision_point, reward_range, config)
        fields, arrays = decode(_KIND, data)
        saved = (fields["decision_point"], (fields["low"], fields["high"]))
        if saved != (decision_point, (monitor._low, monitor._high)):
            raise SnapshotError(
                f"the saved monitor watched {saved[0]!r} with reward range {saved[1]}, not {decision_point!r} with"
                f" {reward_range}; begin with a new monitor"
            )
        settings = monitor._config
        watched = level or settings.weight
        monitor._detector = RBOCPD.load(arrays["detector"].tobytes(), watched, settings.max_candidates)
        monitor._trail = Trail.restored(fields, arrays)
        monitor._called_at = fields["called_at"]
        return monitor


def uniform(decision_id: str) -> float:
    """Return the number in [0, 1) that decides whether a reward between the ends of its range counts as a one.

    A function of the decision id alone, and independent of the number that drew its action.

    >>> uniform("a") == uniform("a") != uniform("b")
    True
    """
    return (seed(decision_id) >> 11) * 2.0**-53
