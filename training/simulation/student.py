"""What learns in a simulation: online as the service does, or in generations as a retraining does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from engine.config import DecisionPoint
from engine.oracles import learn_events, make_learner
from engine.policy import Policy, initial_policy
from monitoring.generations import calibration_error
from training.config import DampingConfig, LightGBMConfig
from training.damping import damped_point, mixed, row_weights
from training.dataset import Dataset, Float64
from training.evaluation.target import policy_prediction
from training.fit import FITTERS, Fitted, candidate, events_of, fit_lightgbm
from training.generations import distances, reference_set, state_of, vectors_of
from training.simulation.book import statistics_of
from training.simulation.world import START_MS

#: No damping, and no test of whether there should be any.
UNDAMPED = DampingConfig(when="never")
#: The decision point's name in a simulation.
NAME = "simulation"


#: From training rows and their weights to what the next generation serves.
Fit = Callable[[Dataset, DecisionPoint, Float64 | None], Fitted]


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


def fit_configured(train: Dataset, point: DecisionPoint, weights: Float64 | None = None) -> Fitted:
    """Learn the decision point's own oracle from scratch, as ``leeway retrain`` does."""
    return FITTERS["configured"](train, point, LightGBMConfig(), 0, weights)


def fit_trees(config: LightGBMConfig, seed: int = 0) -> Fit:
    """Return what fits boosted trees, as ``leeway retrain`` does, on one thread: simulations run side by side."""

    def fit(train: Dataset, point: DecisionPoint, weights: Float64 | None = None) -> Fitted:
        oracle, vocabulary = fit_lightgbm(train, point, config, seed, weights, threads=1)
        return Fitted(oracle, vocabulary, len(train))

    return fit


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
    damping
        What is done against oscillation, and when. By default nothing is.

    Attributes
    ----------
    declared
        Number of the generation after which an oscillation was declared; ``None``: none was.
    """

    def __init__(
        self,
        point: DecisionPoint,
        fit: Fit,
        window: int | None = None,
        share: float = 0.0,
        damping: DampingConfig = UNDAMPED,
    ) -> None:
        self._point = point
        self._fit = fit
        self._share = share
        self._window = window
        self._damping = damping
        longest = None if window is None else max(window, 1 if damping.when == "never" else damping.blend)
        self._recent: deque[Dataset] = deque(maxlen=longest)
        self._judged: list[tuple[float, float, Float64 | None]] = []  # reward, its error, vectors on the reference set
        self._reference: Dataset | None = None
        self.declared: int | None = None
        self.policy = replace(initial_policy(NAME, point, START_MS), uniform_share=share)

    def learn(self, feedback: Dataset) -> None:
        """Fit the next generation; see ``Student.learn``."""
        damped = self._damped(feedback)
        self._recent.append(feedback)
        newest = self._damping.blend if damped and self._damping.blend > 1 else self._window
        parts = list(self._recent) if newest is None else list(self._recent)[-newest:]
        train = Dataset.concatenate(parts)
        weights = row_weights(train, self._damping, self._point.reward.range) if damped else None
        fitted = self._fit(train, self._point, weights)
        point = self._point
        if damped:
            available = float(np.add.reduceat(feedback.available.astype(np.float64), feedback.starts[:-1]).mean())
            point = damped_point(
                point,
                self._damping,
                learned=len(train),
                actions=available,
                calibration_error=self._calibration_error(feedback),
            )
        following = candidate(
            NAME, point, fitted, generation=self.policy.generation + 1, created_ms=self.policy.created_ms
        )
        if damped:
            following = mixed(following, self.policy, self._damping)
        self.policy = replace(following, uniform_share=self._share)

    def _damped(self, feedback: Dataset) -> bool:
        """Enter what the acting generation earned, and say whether the next one is to be damped."""
        if self._damping.when != "declared":
            return self._damping.when == "always"
        if self._reference is None:
            self._reference = reference_set(feedback)
        if self.policy.generation > 0:
            reward = feedback.reward
            error = float(reward.std(ddof=1)) / len(reward) ** 0.5
            self._judged.append((float(reward.mean()), error, vectors_of(self.policy, self._reference)))
        if not self._judged:
            return False
        rewards, errors, vectors = zip(*self._judged, strict=True)
        numbers = range(1, len(rewards) + 1)
        apart = distances(vectors, self._reference)
        state = state_of(numbers, np.array(rewards), np.array(errors), apart, self._damping)
        self.declared = state.declared if self.declared is None else self.declared
        return state.damped

    def _calibration_error(self, feedback: Dataset) -> float:
        if not self.policy.learned or not self._damping.calibrated_gamma:
            return float("nan")
        predicted = policy_prediction(self.policy, feedback).mean[feedback.chosen_flat]
        return calibration_error(statistics_of(feedback, 0, self._point.reward.range, predicted))
