"""A batch of feedback of one decision point, column by column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.records import FALLBACK_REASON_NONE, Decision, Feedback, generation_of
from monitoring.bins import Values
from monitoring.detector import FloatArray, IntArray
from monitoring.draws import Seeds, seeds, to_unit, uniforms

#: Predictions are taken to lie at least this far inside the range of the reward.
_CERTAIN = 0.01

#: The context features of decisions by name: numbers (NaN where missing), or texts (None where missing).
FeatureColumns = Callable[[Sequence[Decision]], Mapping[str, Values]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of n feedbacks. Rewards and scores are shares of the reward range.

    Attributes
    ----------
    time_ms, generation : ndarray of int64, shape (n,)
        Decision time; generation of the policy.
    reward, score, delay_ms : ndarray of float64, shape (n,)
        The score of the chosen action is NaN in a fallback; the delay from decision to reward is NaN where the window
        closed without an outcome.
    defaulted : ndarray of bool, shape (n,)
    seeds : ndarray of uint64, shape (n,)
        Source of all random numbers of a row.
    decisions : ndarray of object, shape (n,)
        The decisions themselves.
    """

    time_ms: IntArray
    generation: IntArray
    reward: FloatArray
    score: FloatArray
    delay_ms: FloatArray
    defaulted: NDArray[np.bool_]
    seeds: Seeds
    decisions: NDArray[np.object_]

    @classmethod
    def of(cls, batch: Sequence[Feedback], reward_range: tuple[float, float]) -> Rows:
        """Take feedback apart; the policy versions must be such."""
        low, high = reward_range
        decisions = [feedback.decision for feedback in batch]
        nothing = float("nan")
        scores = [
            decision.scores[decision.chosen]
            if decision.fallback == FALLBACK_REASON_NONE and len(decision.scores) > decision.chosen >= 0
            else nothing
            for decision in decisions
        ]
        boxes = np.empty(len(batch), object)
        boxes[:] = decisions
        defaulted = np.array([feedback.defaulted for feedback in batch], np.bool_)
        time_ms = np.array([decision.time_ms for decision in decisions], np.int64)
        delay = np.array([feedback.reward_time_ms for feedback in batch], np.float64) - time_ms
        score = (np.array(scores, np.float64) - low) / (high - low)
        return cls(
            time_ms=time_ms,
            generation=_generations(decisions),
            reward=(np.array([feedback.reward for feedback in batch], np.float64) - low) / (high - low),
            score=np.where(np.isfinite(score), score, nothing),
            delay_ms=np.where(defaulted, nothing, delay),
            defaulted=defaulted,
            seeds=seeds(decision.decision_id for decision in decisions),
            decisions=boxes,
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.time_ms)

    def take(self, which: slice | NDArray[Any]) -> Rows:
        """Return some of the rows."""
        return replace(self, **{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def ones(self) -> IntArray:
        """Return the rewards as zeros and ones with the same means."""
        return (to_unit(self.seeds) < self.reward).astype(np.int64)

    def levels(self) -> FloatArray:
        """Return the level of each reward among those that were predicted, NaN where nothing was.

        The randomised probability integral transform of the reward, as a one or a zero, under its score: uniform
        on [0, 1) if the scores are the mean rewards, whatever the policy does.
        """
        score = np.clip(self.score, _CERTAIN, 1.0 - _CERTAIN)
        u = uniforms(self.seeds, "level")
        levels: FloatArray = np.where(self.ones() == 1, 1.0 - score + u * score, u * (1.0 - score))
        return levels

    def chosen(self) -> NDArray[np.object_]:
        """Return the ids of the chosen actions."""
        return _objects(decision.actions[decision.chosen].id for decision in self.decisions)

    def offered(self) -> NDArray[np.object_]:
        """Return for each row the id of one of the actions that could be chosen, each with the same chance."""
        places = map(_offered, self.decisions, uniforms(self.seeds, "offered").tolist())
        return _objects(decision.actions[place].id for decision, place in zip(self.decisions, places, strict=True))

    def probabilities(self, places: Mapping[str, int], other: int) -> FloatArray:
        """Return the logged probability of each place of actions, shape (n, other + 1); other actions are ``other``."""
        columns: list[int] = []
        logged: list[float] = []
        ends = np.zeros(len(self) + 1, np.int64)
        for row, decision in enumerate(self.decisions):
            columns += [places.get(action.id, other) for action in decision.actions]
            logged += decision.probabilities
            ends[row + 1] = len(columns)
        found = np.zeros((len(self), other + 1))
        places_of_rows = np.repeat(np.arange(len(self)), np.diff(ends))
        np.add.at(found, (places_of_rows, np.array(columns, np.int64)), np.array(logged, np.float64))
        return found


def _objects(values: object) -> NDArray[np.object_]:
    return np.fromiter(values, object)  # type: ignore[call-overload, no-any-return]


def offered_places(decisions: Sequence[Decision]) -> list[int]:
    """Return for each decision the place of the action that ``Rows.offered`` names."""
    draws = uniforms(seeds(decision.decision_id for decision in decisions), "offered")
    return list(map(_offered, decisions, draws.tolist()))


def _offered(decision: Decision, u: float) -> int:
    actions = decision.actions
    place = int(u * len(actions))
    if not actions[place].excluded:
        return place
    free = [other for other, action in enumerate(actions) if not action.excluded]
    return free[int(u * len(free))] if free else place


def _generations(decisions: Sequence[Decision]) -> IntArray:
    known: dict[str, int] = {}
    found = np.empty(len(decisions), np.int64)
    for place, decision in enumerate(decisions):
        version = decision.policy_version
        if version not in known:
            known[version] = generation_of(version)
        found[place] = known[version]
    return found
