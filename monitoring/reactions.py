"""What follows from an alarm: the reactions by name, and what a person can do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.records import (
    REACTION_DISCOUNT_LEARNER,
    REACTION_EXPLORE,
    REACTION_HOLD_PROMOTION,
    REACTION_RESET_LEARNER,
    REACTION_RETRAIN,
    Alarm,
    Reaction,
)
from monitoring.config import ReactionName

REACTIONS: dict[ReactionName, Reaction.ValueType] = {
    "retrain": REACTION_RETRAIN,
    "explore": REACTION_EXPLORE,
    "reset_learner": REACTION_RESET_LEARNER,
    "discount_learner": REACTION_DISCOUNT_LEARNER,
    "hold_promotion": REACTION_HOLD_PROMOTION,
}
_NAMES = {number: name for name, number in REACTIONS.items()}

_REMEDIES = {
    "reward": "See which features, actions or scores changed at the same time: leeway drift list.",
    "action_reward": "See what changed about this action, such as price or stock. If it is to stay, retrain.",
    "residual": "The oracle is wrong in a new way: retrain on what came since the change.",
    "calibration": "The oracle is off at this level of its predictions: retrain, or try another oracle.",
    "actions": "Actions are not drawn with the logged probabilities: trust no estimate of it; see: leeway replay.",
    "candidates": "Ask those who send the requests whether the candidates changed; new ones explore by themselves.",
    "features": "Ask those who send it whether its meaning, unit or source changed. If the users changed, retrain.",
    "defaults": "Outcomes are missing, or more come: see that clients report; leeway doctor, leeway dlq list.",
    "delay": "Outcomes come sooner or later: see the reporting path, and whether reward.window still fits.",
    "propensity": "Trust nothing learned from such decisions: run leeway replay, promote nothing before it is clear.",
}


def numbers(names: Iterable[ReactionName]) -> list[Reaction.ValueType]:
    """Return reactions as they are in an alarm."""
    return [REACTIONS[name] for name in names]


def names(alarm: Alarm) -> list[str]:
    """Return the reactions of an alarm by name."""
    return [_NAMES[number] for number in reactions_of(alarm) if number in _NAMES]


def reactions_of(alarm: Alarm) -> list[Reaction.ValueType]:
    """Return what follows from an alarm; one of the time before there were other reactions has what it had then."""
    if alarm.calls_for_retraining and not alarm.reactions:
        return [REACTION_RETRAIN, REACTION_EXPLORE]
    return list(alarm.reactions)


def probability(evidence: float) -> float:
    """Return the probability of a change from its log odds.

    >>> probability(0.0), round(probability(3.0), 3)
    (0.5, 0.953)
    """
    return 1.0 / (1.0 + math.exp(-max(-700.0, min(evidence, 700.0))))


def remedy(monitor: str, *, explained: bool, calls: bool) -> str:
    """Return what a person can do about an alarm of a monitor."""
    if explained:
        return "Nothing: the policy itself moved the reward."
    if calls:
        return f"Retraining follows by itself once there is enough feedback. {_REMEDIES[monitor]}"
    return _REMEDIES[monitor]
