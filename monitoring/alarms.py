"""Alarms of the streams of categories, in words."""

from __future__ import annotations

import hashlib

import numpy as np

from engine.records import DIRECTION_DOWN, DIRECTION_UP, Alarm, Decision
from monitoring.bins import EqualBins, FlagBins
from monitoring.config import MonitorsConfig
from monitoring.detector import FloatArray
from monitoring.family import Finding
from monitoring.plans import Plan
from monitoring.reactions import numbers, probability, remedy

_SUBJECTS = {
    "action_reward": "The reward of action {stream}, given its score,",
    "residual": "The reward, given the score,",
    "calibration": "The reward at scores of {stream} of the range",
    "actions": "What is chosen, against the logged probabilities,",
    "candidates": "What is offered",
    "features": "Feature {stream}",
    "defaults": "The share of default rewards, given the score,",
    "delay": "The delay of the outcomes",
}


def alarm_id(monitor: str, decision: Decision) -> str:
    """Return the id of the alarm that a monitor raises at a decision."""
    return hashlib.blake2b(f"{monitor}\0{decision.decision_id}".encode(), digest_size=16).hexdigest()


def change_alarm(finding: Finding, decision: Decision, config: MonitorsConfig, seen: int) -> Alarm:
    """Return the alarm of a change in a stream.

    Parameters
    ----------
    finding
        The change.
    decision
        At which it was found.
    config
        Says what follows.
    seen
        Feedbacks of the decision point so far.
    """
    plan, shift = finding.plan, finding.shift
    change = shift.change
    before = np.array(change.counts_before) / change.count_before
    after = np.array(change.counts_after) / change.count_after
    what, old, new = _summary(plan, before, after)
    reactions = config.of(plan.monitor).reactions
    subject = _SUBJECTS[plan.monitor].format(stream=plan.stream)
    words = (
        f"{subject} changed: {what} from {old:.3g} ({change.count_before} observations) to {new:.3g} "
        f"({change.count_after}); {shift.effect:.0%} of the observations are in other categories."
    )
    if reactions and not finding.acts:
        words += " It has acted on an alarm of this stream not long ago, so not again."
    acting = reactions if finding.acts else ()
    return Alarm(
        alarm_id=alarm_id(plan.key, decision),
        decision_point=decision.decision_point,
        monitor=plan.monitor,
        stream=plan.stream,
        detected_ms=decision.time_ms,
        change_ms=shift.change_ms,
        mean_before=old,
        mean_after=new,
        count_before=change.count_before,
        count_after=change.count_after,
        evidence=change.evidence,
        probability=probability(change.evidence),
        effect=shift.effect,
        direction=DIRECTION_UP if new > old else DIRECTION_DOWN,
        calls_for_retraining="retrain" in acting,
        reactions=numbers(acting),
        explanation=words,
        remedy=remedy(plan.monitor, explained=False, calls="retrain" in acting),
        feedback_seen=seen,
        categories=plan.bins.names,
        counts_before=change.counts_before,
        counts_after=change.counts_after,
    )


def audit_alarm(decision: Decision, difference: str, mismatches: int, config: MonitorsConfig, seen: int) -> Alarm:
    """Return the alarm of a decision that its policy does not explain; no chance is in it."""
    reactions = config.propensity.reactions
    return Alarm(
        alarm_id=alarm_id("propensity", decision),
        decision_point=decision.decision_point,
        monitor="propensity",
        detected_ms=decision.time_ms,
        change_ms=decision.time_ms,
        count_after=mismatches,
        probability=1.0,
        effect=1.0,
        direction=DIRECTION_UP,
        calls_for_retraining="retrain" in reactions,
        reactions=numbers(reactions),
        explanation=f"Decision {decision.decision_id!r} is not what its policy gives: {difference[:500]}.",
        remedy=remedy("propensity", explained=False, calls=False),
        feedback_seen=seen,
    )


def _summary(plan: Plan, before: FloatArray, after: FloatArray) -> tuple[str, float, float]:
    """Return one figure of both sides, with its name."""
    if isinstance(plan.bins, EqualBins):
        middles = (np.arange(plan.bins.count) + 0.5) / plan.bins.count
        return "the mean level among what was predicted", float(middles @ before), float(middles @ after)
    if isinstance(plan.bins, FlagBins):
        return "it went", float(before[1]), float(after[1])
    place = int(np.abs(after - before).argmax())
    return f"{plan.bins.names[place]} went", float(before[place]), float(after[place])
