"""What learns in a simulation: online as the service does, or in generations as a retraining does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from engine.config import DecisionPoint
from engine.oracles import learn_events, make_learner
from engine.policy import Policy, initial_policy
from training.config import LightGBMConfig
from training.dataset import Dataset
from training.fit import FITTERS, Fitted, candidate, events_of
from training.simulation.world import START_MS

#: The decision point's name in a simulation.
NAME = "simulation"


#: From training rows to what the next generation serves.
Fit = Callable[[Dataset, DecisionPoint], Fitted]


class Student(Protocol):
    """Turns feedback into policies.

    Attributes
    ----------
    policy
        What serves now.
    """

    policy: Policy

    def learn(self, feedback: Dataset) -> None:
        """Learn from feedback, in its order, and let the policy that comes of it serve."""


class OnlineStudent:
    """Learns as ``streaming.point_learner`` does: the learner takes every feedback once, and a policy is published.

    Parameters
    ----------
    point
        The decision point; its oracle is the one that learns, from what ``policy.learning`` makes of feedback.
    window
        Forget all but the newest so many feedbacks; ``None``: remember everything.
    share
        Share of uniform exploration that is mixed into every vector.
    """

    def __init__(self, point: DecisionPoint, window: int | None = None, share: float = 0.0) -> None:
        self._point = point
        self._window = window
        self._recent: deque[Dataset] = deque()
        self._learner = make_learner(point)
        self.policy = replace(initial_policy(NAME, point, START_MS), uniform_share=share)

    def learn(self, feedback: Dataset) -> None:
        """Take feedback in, and publish; see ``Student.learn``."""
        if self._window is None:
            self._take(feedback)
        else:
            self._recent.append(feedback)
            over = sum(map(len, self._recent)) - self._window
            while over > 0:
                first = self._recent.popleft()
                if len(first) > over:
                    self._recent.appendleft(first.rows(slice(over, None)))
                over -= len(first)
            self._learner = make_learner(self._point)
            for part in self._recent:
                self._take(part)
        if not self.policy.exploration.due(self.policy.learned, self._learner.learned):
            return
        self.policy = replace(
            self.policy,
            vocabulary=tuple(self._learner.vocabulary),
            oracle=self._learner.oracle(),
            update=self.policy.update + 1,
            learned=self._learner.learned,
        )

    def _take(self, feedback: Dataset) -> None:
        learn_events(self._learner, events_of(feedback))


def fit_configured(train: Dataset, point: DecisionPoint) -> Fitted:
    """Learn the decision point's own oracle from scratch, as ``leeway retrain`` does."""
    return FITTERS["configured"](train, point, LightGBMConfig(), 0)


def fit_trees(config: LightGBMConfig, seed: int = 0) -> Fit:
    """Return what fits boosted trees, as ``leeway retrain`` does."""
    return lambda train, point: FITTERS["lightgbm"](train, point, config, seed)


class BatchStudent:
    """Fits each generation anew on the feedback of those before it, as ``leeway retrain`` does without its gate.

    Parameters
    ----------
    point
        The decision point.
    fit
        From the training rows to what was fitted.
    window
        Learn from the newest so many generations; ``None``: from all.
    share
        Share of uniform exploration that is mixed into every vector.
    """

    def __init__(
        self,
        point: DecisionPoint,
        fit: Fit,
        window: int | None = None,
        share: float = 0.0,
    ) -> None:
        self._point = point
        self._fit = fit
        self._share = share
        self._recent: deque[Dataset] = deque(maxlen=window)
        self.policy = replace(initial_policy(NAME, point, START_MS), uniform_share=share)

    def learn(self, feedback: Dataset) -> None:
        """Fit the next generation; see ``Student.learn``."""
        self._recent.append(feedback)
        fitted = self._fit(Dataset.concatenate(self._recent), self._point)
        following = candidate(
            NAME, self._point, fitted, generation=self.policy.generation + 1, created_ms=self.policy.created_ms
        )
        self.policy = replace(following, uniform_share=self._share)
