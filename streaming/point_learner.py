"""What is learned of one decision point, and the policies that come of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.config import DecisionPoint
from engine.errors import InvalidRequest
from engine.features import Encoder, Float32
from engine.oracles import Learner, learn_events, make_learner
from engine.oracles.events import EventLearner, Events
from engine.policy import Policy, initial_policy
from engine.records import Alarm, Feedback
from streaming.intake import place
from streaming.log import Record

logger = logging.getLogger(__name__)


class PointLearner:
    """What is learned of one decision point, and the policy that comes of it.

    A generation whose oracle learns online goes on learning; any other serves as it was trained until
    the next generation. After an alarm that calls for retraining the policy explores uniformly with the share of the
    reward that was lost (at most ``policy.drift_exploration``): the oracle has been shown wrong, a new generation needs
    data on every action, and this costs at most what the drift itself costs. The next promotion ends it.

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
        learner: Learner | None,
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
        self._another_share = False
        self._served = policy.learned
        self._published_ms = policy.created_ms

    @classmethod
    def fresh(cls, name: str, point: DecisionPoint, now_ms: int, generation: int = 0) -> PointLearner:
        """Start with nothing learned."""
        return cls(name, point, initial_policy(name, point, now_ms, generation), make_learner(point))

    def learn(self, batch: Sequence[tuple[Record, Feedback]]) -> int:
        """Learn from feedback and return how many of it could be used; what does not fit the schema is passed over."""
        if self.exploring:
            self.exploring = max(0, self.exploring - len(batch))
            self._another_share |= not self.exploring
        if self.learner is None:
            return 0
        whole = isinstance(self.learner, EventLearner)
        rows: list[Float32] = []
        available: list[NDArray[np.bool_]] = []
        actions: list[str] = []
        chosen: list[int] = []
        rewards: list[float] = []
        propensity: list[float] = []
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
            # A learner of rows needs the chosen one alone; thousands of others stay out of memory.
            kept = slice(None) if whole else slice(decision.chosen, decision.chosen + 1)
            chosen.append(len(actions) + (decision.chosen if whole else 0))
            actions += [action.id for action in decision.actions[kept]]
            rows.append(encoded.X[kept])
            available.append(encoded.available[kept])
            rewards.append(feedback.reward)
            propensity.append(decision.probabilities[decision.chosen])
        if rewards:
            learn_events(
                self.learner,
                Events(
                    X=np.concatenate(rows),
                    actions=actions,
                    available=np.concatenate(available),
                    starts=np.cumsum([0, *map(len, rows)]),
                    chosen=np.array(chosen),
                    propensity=np.array(propensity),
                    rewards=np.array(rewards),
                    weights=np.ones(len(rewards)),
                ),
            )
            self._dirty = True
        return len(rewards)

    def alarm(self, alarm: Alarm) -> None:
        """Explore for a while, if the alarm calls for retraining and is younger than the generation."""
        if not alarm.calls_for_retraining or alarm.detected_ms <= self.after_ms:
            return
        gained = alarm.mean_before - self.point.reward.range[0]
        lost = (alarm.mean_before - alarm.mean_after) / gained if gained > 0.0 else 1.0
        share = min(lost, self.point.policy.drift_exploration)
        if share > 0.0:
            self.exploring = self.point.policy.drift_exploration_feedbacks
            self.policy = replace(self.policy, uniform_share=share)
            self._another_share = True
            self._published_ms = 0  # every decision until then is made by an oracle that is known to be wrong

    def update(self, now_ms: int) -> Policy | None:
        """Return a new policy if there is something new and the publishing interval has passed.

        There is something new until ``published`` says that the policy could be. What was learned waits where the
        exploration says that it is not due; another share of uniform exploration does not.
        """
        if now_ms - self._published_ms < self.point.policy.publish_interval:
            return None
        learner = self.learner if self._due() else None
        if learner is None and not self._another_share:
            return None
        oracle = self.policy.oracle if learner is None else learner.oracle()
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
        self._dirty = self._another_share = False
        self._served = self.policy.learned
        self._published_ms = now_ms

    def _due(self) -> bool:
        """Say whether what was learned is to be served."""
        if self.learner is None or not self._dirty:
            return False
        another_point = self.policy.point != self.point
        return another_point or self.policy.exploration.due(self._served, self.learner.learned)

    def promote(self, policy: Policy, learner: Learner | None, after_ms: int, now_ms: int) -> None:
        """Go on from a promoted generation."""
        self.policy = policy
        self.learner = learner
        self.after_ms = after_ms
        self.exploring = 0
        # The statistics have seen the held-back feedback too, which the policy, as it was judged, has not.
        self._dirty = learner is not None and learner.learned != policy.learned
        self._another_share = False
        self._served = policy.learned
        self._published_ms = now_ms
