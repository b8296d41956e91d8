"""The reward monitor: R-BOCPD on the rewards of one decision point, in the order of the log."""

from __future__ import annotations

import hashlib
import math
from typing import Self

import numpy as np

from engine.errors import SnapshotError
from engine.records import DIRECTION_DOWN, DIRECTION_UP, Alarm, Decision, Feedback
from monitoring.config import RewardMonitorConfig
from monitoring.detector import Change
from monitoring.rbocpd import RBOCPD
from monitoring.state import decode, encode
from monitoring.trail import Split, Trail
from monitoring.verdict import judge

MONITOR = "reward"

_KIND = "reward-monitor/2"


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
    def run_length(self) -> int:
        """Feedbacks since the last change."""
        return self._detector.run_length

    def update(self, feedback: Feedback) -> Alarm | None:
        """Take the next feedback; return the alarm that it raises, if any."""
        decision = feedback.decision
        if decision.decision_point != self._point:
            raise ValueError(f"feedback of {decision.decision_point!r} given to the monitor of {self._point!r}")
        if not math.isfinite(feedback.reward):
            raise ValueError(f"reward {feedback.reward} of decision {decision.decision_id!r} is not a finite number")
        share = (feedback.reward - self._low) / (self._high - self._low)
        anchor = self._detector.run_start
        self._trail.add(decision.time_ms, share, self._residual(decision, feedback.reward))
        change = self._detector.update(int(uniform(decision.decision_id) < share))
        alarm = None if change is None else self._alarm(change, self._trail.split(anchor, change.index), decision)
        if len(self._trail) > self._config.max_candidates:
            self._trail.keep(self._detector.starts)
        return alarm

    def _residual(self, decision: Decision, reward: float) -> float | None:
        """Reward minus predicted reward, as a share of the range; None in a fallback, which has no scores."""
        if not 0 <= decision.chosen < len(decision.scores):
            return None
        residual = (reward - decision.scores[decision.chosen]) / (self._high - self._low)
        return residual if math.isfinite(residual) else None

    def _alarm(self, change: Change, split: Split, decision: Decision) -> Alarm:
        before, after = split.residuals_before, split.residuals_after
        fall = split.mean_before - split.mean_after
        finding = judge(fall, before, after, self._config.min_effect)
        calls = finding.calls_for_retraining and not self._called_before(change)
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
            self._called_at = self.seen
            explanation += " Retraining is called for."
        elif finding.calls_for_retraining:
            explanation += (
                f" Retraining was called for {self.seen - (self._called_at or 0)} feedbacks ago, so not again."
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
            feedback_seen=self.seen,
        )

    def _called_before(self, change: Change) -> bool:
        """Whether the last call for retraining covers this change: the cool-down runs, or the change is older."""
        if self._called_at is None:
            return False
        return change.index < self._called_at or self.seen <= self._called_at + self._config.cooldown

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
    ) -> Self:
        """Return the monitor that ``save`` wrote, under the configuration of now.

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
        monitor._detector = RBOCPD.load(arrays["detector"].tobytes(), settings.weight, settings.max_candidates)
        monitor._trail = Trail.restored(fields, arrays)
        monitor._called_at = fields["called_at"]
        return monitor


def uniform(decision_id: str) -> float:
    """Return the number in [0, 1) that decides whether a reward between the ends of its range counts as a one.

    A function of the decision id alone, and independent of the number that drew its action.

    >>> uniform("a") == uniform("a") != uniform("b")
    True
    """
    digest = hashlib.blake2b(f"{decision_id}monitor".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
