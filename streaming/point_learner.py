"""What is learned of one decision point, and the policies that come of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.config import DecisionPoint, UCRL2OracleConfig
from engine.errors import InvalidRequest
from engine.features import Encoder, Float32
from engine.oracles import BackgroundLearner, DiscountingLearner, Learner, Worker, learn_events, make_learner
from engine.oracles.background import AT_ONCE
from engine.oracles.events import EventLearner, Events
from engine.policy import Policy, initial_policy
from engine.records import (
    MODE_APPRENTICE,
    MODE_LOGGING_ONLY,
    REACTION_DISCOUNT_LEARNER,
    REACTION_EXPLORE,
    REACTION_RESET_LEARNER,
    Alarm,
    Feedback,
)
from engine.sequential import UCRL2Learner
from monitoring.reactions import reactions_of
from streaming.intake import place
from streaming.log import Record
from streaming.pair_detector import PairDetector

logger = logging.getLogger(__name__)

#: What was learned before a change counts for so much of what it did, where an alarm asks for it.
DISCOUNT = 0.1


def new_learner(point: DecisionPoint) -> Learner | UCRL2Learner:
    """Return a learner for a decision point's oracle that has learned nothing."""
    if isinstance(point.policy.oracle, UCRL2OracleConfig):
        return UCRL2Learner(point, PairDetector)
    return make_learner(point)


class PointLearner:
    """What is learned of one decision point, and the policy that comes of it.

    A generation whose oracle learns online, or a plan of UCRL2, goes on learning; any other serves as it was trained
    until the next generation. After an alarm that asks for it the policy explores uniformly with the share of the
    reward that was lost (at most ``policy.drift_exploration``): the oracle has been shown wrong, a new generation needs
    data on every action, and this costs at most what the drift itself costs. Of a change in anything but the reward
    the share is its effect. The next promotion ends it. An alarm may also ask the learner to forget everything, or
    to let what it knows count for a tenth.

    Nothing is learned while the mode is ``logging_only``, nor later of what was decided in it. Of a decision of mode
    ``apprentice`` not the reward is learned, but what the caller chose: the greatest reward for that action, the least
    for every other one that was available, as if each had been tried once. A learner of whole decisions passes it over.

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
    worker
        Who fits what is fitted now and then, while it goes on to learn; nobody else by default.
    """

    def __init__(
        self,
        name: str,
        point: DecisionPoint,
        policy: Policy,
        learner: Learner | UCRL2Learner | None,
        after_ms: int = 0,
        exploring: int = 0,
        worker: Worker = AT_ONCE,
    ) -> None:
        self.name = name
        self.mode = point.mode
        self.point = point.model_copy(update={"mode": "online"})  # of a policy it is no part
        self.policy = policy
        self._worker = worker
        self.learner = self._at_work(learner)
        self.after_ms = after_ms
        self.exploring = exploring
        self._encoder = Encoder(point)
        self._dirty = False
        self._another_share = False
        self._served = policy.learned
        self._published_ms = policy.created_ms

    @classmethod
    def fresh(
        cls, name: str, point: DecisionPoint, now_ms: int, generation: int = 0, worker: Worker = AT_ONCE
    ) -> PointLearner:
        """Start with nothing learned."""
        return cls(name, point, initial_policy(name, point, now_ms, generation), new_learner(point), worker=worker)

    def _at_work(self, learner: Learner | UCRL2Learner | None) -> Learner | UCRL2Learner | None:
        """Return a learner whose work in the background is the worker's."""
        if isinstance(learner, BackgroundLearner):
            learner.work_in(self._worker)
        return learner

    def settle(self) -> bool:
        """Take over what was fitted in the background, and say whether anything was; raises what the fitting raised."""
        settled = isinstance(self.learner, BackgroundLearner) and self.learner.settle()
        self._dirty |= settled
        return settled

    def learn(self, batch: Sequence[tuple[Record, Feedback]]) -> int:
        """Learn from feedback and return how many of it could be used; what does not fit the schema is passed over."""
        if self.mode == "logging_only":
            return 0
        batch = [entry for entry in batch if entry[1].decision.mode != MODE_LOGGING_ONLY]
        if self.exploring:
            self.exploring = max(0, self.exploring - len(batch))
            self._another_share |= not self.exploring
        if self.learner is None:
            return 0
        if isinstance(self.learner, UCRL2Learner):
            count = self.learner.learn([(record.partition, feedback) for record, feedback in batch])
            self._dirty |= bool(count)
            return count
        whole = isinstance(self.learner, EventLearner)
        rows: list[Float32] = []
        available: list[NDArray[np.bool_]] = []
        actions: list[str] = []
        chosen: list[int] = []
        rewards: list[float] = []
        propensity: list[float] = []
        imitated = 0  # rows of decisions of an apprentice, beyond one for each
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
            if decision.mode == MODE_APPRENTICE:
                if whole:
                    continue
                least, greatest = self.point.reward.range
                tried = np.flatnonzero(encoded.available).tolist()
                for index in tried:
                    chosen.append(len(actions))
                    actions.append(decision.actions[index].id)
                    rows.append(encoded.X[index : index + 1])
                    available.append(encoded.available[index : index + 1])
                    rewards.append(greatest if index == decision.chosen else least)
                    propensity.append(1.0)
                imitated += len(tried) - 1
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
        return len(rewards) - imitated

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
            self._forget()
        elif REACTION_DISCOUNT_LEARNER in reactions:
            if isinstance(self.learner, DiscountingLearner):
                self.learner.discount(DISCOUNT)
                self._dirty = True
            else:
                logger.warning(
                    "%s: a learner of kind %s cannot count old feedback for less, and forgets it all",
                    self.name,
                    self.learner.kind,
                )
                self._forget()

    def _forget(self) -> None:
        self.learner = self._at_work(new_learner(self.point))
        self._dirty = True
        self._served = 0

    def _explore(self, alarm: Alarm) -> None:
        lost = alarm.effect
        if alarm.monitor in ("reward", ""):
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
            # A policy that stands still keeps the exploration that it was proved with.
            point=self.policy.point if self.learner is None else self.point,
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
        self.learner = self._at_work(learner)
        self.after_ms = after_ms
        self.exploring = 0
        # The statistics have seen the held-back feedback too, which the policy, as it was judged, has not.
        self._dirty = learner is not None and learner.learned != policy.learned
        self._another_share = False
        self._served = policy.learned
        self._published_ms = now_ms
