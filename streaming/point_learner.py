"""What is learned of one decision point, and the policies that come of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.config import DecisionPoint
from engine.errors import InvalidRequest
from engine.features import Encoder
from engine.oracles import LinearLearner
from engine.policy import Policy, initial_policy
from engine.records import (
    REACTION_DISCOUNT_LEARNER,
    REACTION_EXPLORE,
    REACTION_RESET_LEARNER,
    Alarm,
    Feedback,
)
from monitoring.reactions import reactions_of
from streaming.intake import place
from streaming.log import Record

logger = logging.getLogger(__name__)

#: What was learned before a change counts for so much of what it did, where an alarm asks for it.
DISCOUNT = 0.1


class PointLearner:
    """What is learned of one decision point, and the policy that comes of it.

    A generation with a linear oracle goes on learning; one with any other oracle serves as it was trained until
    the next generation. After an alarm that asks for it the policy explores uniformly with the share of the
    reward that was lost (at most ``policy.drift_exploration``): the oracle has been shown wrong, a new generation needs
    data on every action, and this costs at most what the drift itself costs. Of a change in anything but the reward
    the share is its effect. The next promotion ends it. An alarm may also ask the learner to forget everything, or
    to let what it knows count for a tenth.

    Parameters
    ----------
    name, point
        The decision point.
    policy
        The one to go on from.
    learner
        Its statistics, if its oracle learns online.
    after_ms
        Feedback of decisions up to this time is part of the statistics already.
    exploring
        Feedbacks for which the exploration of an alarm still lasts.
    """

    def __init__(
        self,
        name: str,
        point: DecisionPoint,
        policy: Policy,
        learner: LinearLearner | None,
        after_ms: int = 0,
        exploring: int = 0,
    ) -> None:
        self.name = name
        self.point = point
        self.policy = policy
        self.learner = learner
        self.after_ms = after_ms
        self.exploring = exploring
        self._encoder = Encoder(point)
        self._dirty = False
        self._published_ms = policy.created_ms

    @classmethod
    def fresh(cls, name: str, point: DecisionPoint, now_ms: int, generation: int = 0) -> PointLearner:
        """Start with nothing learned."""
        return cls(name, point, initial_policy(name, point, now_ms, generation), _empty(point))

    def learn(self, batch: Sequence[tuple[Record, Feedback]]) -> int:
        """Learn from feedback and return how many of it could be used; what does not fit the schema is passed over."""
        if self.exploring:
            self.exploring = max(0, self.exploring - len(batch))
            self._dirty |= not self.exploring
        if self.learner is None:
            return 0
        X = np.zeros((len(batch), self._encoder.width), dtype=np.float32)
        actions: list[str] = []
        rewards: list[float] = []
        for record, feedback in batch:
            decision = feedback.decision
            if decision.time_ms <= self.after_ms:
                continue
            try:
                encoded = self._encoder.encode(decision.context, decision.actions, decision.packed_actions)
            except InvalidRequest as error:
                # It fitted the schema when it was decided: the schema has changed since.
                logger.error("%s: decision %r is not learned: %s", place(record), decision.decision_id, error)
                continue
            X[len(actions)] = encoded.X[decision.chosen]
            actions.append(decision.actions[decision.chosen].id)
            rewards.append(feedback.reward)
        self.learner.partial_fit(X[: len(actions)], actions, np.array(rewards))
        self._dirty |= bool(actions)
        return len(actions)

    def alarm(self, alarm: Alarm) -> None:
        """Do what an alarm asks of the learner, if it is younger than the generation."""
        if alarm.detected_ms <= self.after_ms:
            return
        reactions = reactions_of(alarm)
        if REACTION_EXPLORE in reactions:
            self._explore(alarm)
        if self.learner is None:
            return  # its oracle serves as it was trained, and learns nothing
        if REACTION_RESET_LEARNER in reactions:
            self.learner = _empty(self.point)
            self._dirty = True
        elif REACTION_DISCOUNT_LEARNER in reactions:
            self.learner.discount(DISCOUNT)
            self._dirty = True

    def _explore(self, alarm: Alarm) -> None:
        lost = alarm.effect
        if alarm.monitor in ("reward", ""):
            gained = alarm.mean_before - self.point.reward.range[0]
            lost = (alarm.mean_before - alarm.mean_after) / gained if gained > 0.0 else 1.0
        share = min(lost, self.point.policy.drift_exploration)
        if share > 0.0:
            self.exploring = self.point.policy.drift_exploration_feedbacks
            self.policy = replace(self.policy, uniform_share=share)
            self._dirty = True
            self._published_ms = 0  # every decision until then is made by an oracle that is known to be wrong

    def update(self, now_ms: int) -> Policy | None:
        """Return a new policy if there is something new and the publishing interval has passed.

        There is something new until ``published`` says that the policy could be.
        """
        if not self._dirty or now_ms - self._published_ms < self.point.policy.publish_interval:
            return None
        learner = self.learner
        try:
            oracle = self.policy.oracle if learner is None else learner.oracle()
        except np.linalg.LinAlgError as error:
            # One value of 1e9 does it, and later feedback does not undo it.
            logger.error(
                "%s: what was learned has no solution (%s), and %s goes on serving; features are too large: give them "
                "a scale in the configuration, and learning starts afresh", self.name, error, self.policy.version,
            )  # fmt: skip
            self._published_ms = now_ms
            return None
        self.policy = replace(
            self.policy,
            point=self.point,
            vocabulary=self.policy.vocabulary if learner is None else tuple(learner.vocabulary),
            oracle=oracle,
            update=self.policy.update + 1,
            learned=self.policy.learned if learner is None else learner.learned,
            created_ms=now_ms,
            uniform_share=self.policy.uniform_share if self.exploring else 0.0,
        )
        return self.policy

    def published(self, now_ms: int) -> None:
        """Take note that what ``update`` returned is served."""
        self._dirty = False
        self._published_ms = now_ms

    def promote(self, policy: Policy, learner: LinearLearner | None, after_ms: int, now_ms: int) -> None:
        """Go on from a promoted generation."""
        self.policy = policy
        self.learner = learner
        self.after_ms = after_ms
        self.exploring = 0
        # The statistics have seen the held-back feedback too, which the policy, as it was judged, has not.
        self._dirty = learner is not None and learner.learned != policy.learned
        self._published_ms = now_ms


def _empty(point: DecisionPoint) -> LinearLearner:
    oracle = point.policy.oracle
    return LinearLearner(
        Encoder(point).width, ridge=oracle.ridge, forgetting=oracle.forgetting, max_actions=oracle.max_actions
    )
