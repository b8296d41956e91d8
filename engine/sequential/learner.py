"""What learns a plan of UCRL2 from the feedback of one decision point, and gives it as an oracle that can be served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.config import DecisionPoint, TextFeature, UCRL2OracleConfig
from engine.features import Encoder
from engine.hashing import text_bucket
from engine.oracles.base import Arrays
from engine.oracles.tabular import TabularOracle
from engine.records import Decision, Feedback
from engine.sampling import uniform
from engine.sequential.change_detector import DetectorFactory
from engine.sequential.rbocpd_ucrl2 import RBOCPDUCRL2
from engine.sequential.trajectories import Trajectories, Transition, Visit
from engine.sequential.ucrl2 import UCRL2

#: Other than the salt of any draw: the coin must not depend on the action that was drawn.
_COIN = "the coin of a reward between 0 and 1"


class UCRL2Learner:
    """Learns online where the context names the state of a unit.

    The states of the process are those that the configuration declares and the *end*, in which a unit has left and the
    next one has not come: one action, no reward. So the gain that is optimised is reward per decision, an end counting
    as one more. Rewards are taken as shares of the reward's range.

    An episode ends as soon as a pair has been seen as often within it as before. Whose plan made a decision does not
    matter: decisions of an earlier plan, of a fallback and of random exploration count as they came.

    Parameters
    ----------
    point
        The decision point, whose ``policy.oracle`` is of kind ``ucrl2``.
    detector
        Makes the change detectors.

    Attributes
    ----------
    vocabulary : list of str
        Ids of the actions with codes 1, 2, ... in the oracle: those that the configuration declares.
    learned : int
        Decisions whose reward and successor are part of what is known, those before a restart included.
    """

    kind: ClassVar[str] = "ucrl2"

    def __init__(self, point: DecisionPoint, detector: DetectorFactory) -> None:
        config = point.policy.oracle
        if not isinstance(config, UCRL2OracleConfig):
            raise ValueError(f"policy.oracle is of kind {config.kind}, not ucrl2")
        self._config = config
        self._low, high = point.reward.range
        self._width = high - self._low
        self._states = {state: number for number, state in enumerate(config.states)}
        self._actions = {action: number for number, action in enumerate(config.actions)}
        self._allowed = np.zeros((len(self._states) + 1, len(self._actions)), np.bool_)
        for state, actions in config.states.items():
            self._allowed[self._states[state], [self._actions[action] for action in actions]] = True
        end = len(self._states)
        self._allowed[end, 0] = True
        column = Encoder(point).context.columns[config.state]
        assert isinstance(column.feature, TextFeature)
        self._start = column.start
        self._rows = np.zeros(column.feature.buckets, np.int64)
        for state, number in self._states.items():
            self._rows[text_bucket(config.state, state, len(self._rows))] = 1 + number
        unrewarded = np.arange(end + 1) == end
        shape = self._allowed.shape
        self._ucrl2: UCRL2
        if config.restarts:
            self._ucrl2 = RBOCPDUCRL2(
                *shape, delta=config.delta, width_scale=config.width_scale, allowed=self._allowed,
                unrewarded=unrewarded, detector=detector,
            )  # fmt: skip
        else:
            self._ucrl2 = UCRL2(
                *shape, delta=config.delta, width_scale=config.width_scale, allowed=self._allowed, unrewarded=unrewarded
            )
        terminal = frozenset(self._states[state] for state in config.terminal)
        self._trajectories = Trajectories(end, terminal, config.idle, config.patience, config.max_units)
        self.vocabulary = list(self._actions)
        self.learned = 0

    @property
    def restarts(self) -> int:
        """How often a change was found."""
        return len(self._ucrl2.restarts) if isinstance(self._ucrl2, RBOCPDUCRL2) else 0

    @property
    def late(self) -> int:
        """Decisions that were passed over because their unit had gone on when they came."""
        return self._trajectories.late

    def learn(self, batch: Sequence[tuple[int, Feedback]]) -> int:
        """Take feedback, each with the number of its partition; return how many decisions were learned.

        Those may have come in an earlier batch: a decision is learned when it is known what followed it.
        """
        before = self.learned
        for source, feedback in batch:
            visit = self._visit(feedback)
            if visit is not None:
                self._trajectories.add(visit, source)
        for step in self._trajectories.steps():
            self._take(step)
        return self.learned - before

    def _visit(self, feedback: Feedback) -> Visit | None:
        decision = feedback.decision
        unit = _text(decision, self._config.unit)
        if not unit:
            return None  # nobody can tell what came before or after it
        state = self._states.get(_text(decision, self._config.state), -1)
        action = self._actions.get(decision.actions[decision.chosen].id, -1)
        if state >= 0 and action >= 0 and not self._allowed[state, action]:
            action = -1
        reward = min(1.0, max(0.0, (feedback.reward - self._low) / self._width))
        return Visit(decision.time_ms, decision.decision_id, unit, state, action, reward)

    def _take(self, step: Transition) -> None:
        learner = self._ucrl2
        if isinstance(learner, RBOCPDUCRL2):
            coin = uniform(step.decision_id, _COIN) if step.decision_id else 0.5
            learner.observe(step.state, step.action, step.reward, step.next_state, coin)
        else:
            learner.observe(step.state, step.action, step.reward, step.next_state)
        if learner.full(step.state, step.action):
            learner.begin_episode()
        self.learned += bool(step.decision_id)

    def oracle(self) -> TabularOracle:
        """Return the plan, as an oracle that no longer changes.

        The score of an action is its optimistic value in the state, in units of reward, relative to the worst state.
        In a state that the configuration does not declare it is the mean over the states that have the action. An
        action that the state does not have is scored below all that it has.
        """
        q = np.where(self._allowed, self._ucrl2.plan.q, np.nan)[:-1]
        lowest = np.nanmin(q) - 1.0
        table = np.full((1 + len(q), 1 + q.shape[1]), lowest)
        table[0, 1:] = np.nanmean(q, axis=0)
        table[1:, 1:] = np.where(np.isnan(q), lowest, q)
        return TabularOracle(table * self._width, self._rows.copy(), self._start)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state, from which ``restore`` goes on as if nothing had happened."""
        return {**self._ucrl2.arrays(), **self._trajectories.arrays(), "learned": np.array(self.learned)}

    def restore(self, arrays: Arrays) -> None:
        """Take up a state that ``arrays`` gave; raises ``KeyError`` or ``ValueError`` where it does not fit."""
        self._ucrl2.restore(arrays)
        self._trajectories.restore(arrays["trajectories"])
        self.learned = int(arrays["learned"])


def _text(decision: Decision, feature: str) -> str:
    """Return a text of the context; empty where there is none."""
    named = decision.context.named
    return named[feature].text if feature in named else ""
