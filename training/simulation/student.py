"""What learns in a simulation: online as the service does, or in generations as a retraining does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine.config import DecisionPoint
from engine.features import Encoder
from engine.oracles import LinearLearner
from engine.policy import Policy, initial_policy
from training.config import LightGBMConfig, OracleName
from training.dataset import Dataset
from training.fit import FITTERS, Fitted, candidate
from training.simulation.world import START_MS, Float64

#: The decision point's name in a simulation.
NAME = "simulation"

#: From feedback to the weight of each row in the regression; ``None``: all alike.
Weigh = Callable[[Dataset], Float64 | None]


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


def plain(feedback: Dataset) -> None:
    """Regression of the reward on what was done: every row alike, as the service learns."""
    return


def inverse_propensity(feedback: Dataset) -> Float64:
    """Multi-task regression: each row weighs the inverse of its propensity.

    Bietti, Agarwal and Langford, *A Contextual Bandit Bake-off*, JMLR 2021, section 3.2 ("MTR"). The fit is the one
    that uniform exploration would have given, at the price of variance.
    """
    weights: Float64 = 1.0 / feedback.propensity
    return weights


WEIGHINGS: dict[str, Weigh] = {"plain": plain, "mtr": inverse_propensity}


class OnlineStudent:
    """Learns as ``streaming.point_learner`` does: the learner takes every feedback once, and a policy is published.

    Parameters
    ----------
    point
        The decision point; its oracle is the one that learns.
    weigh
        Weights of the rows.
    window
        Forget all but the newest so many feedbacks; ``None``: remember everything.
    share
        Share of uniform exploration that is mixed into every vector.
    """

    def __init__(
        self, point: DecisionPoint, weigh: Weigh = plain, window: int | None = None, share: float = 0.0
    ) -> None:
        self._point = point
        self._weigh = weigh
        self._window = window
        self._recent: deque[Dataset] = deque()
        self._learner = self._fresh()
        self.policy = replace(initial_policy(NAME, point, START_MS), uniform_share=share)

    def _fresh(self) -> LinearLearner:
        oracle = self._point.policy.oracle
        return LinearLearner(
            Encoder(self._point).width,
            ridge=oracle.ridge,
            forgetting=oracle.forgetting,
            max_actions=oracle.max_actions,
        )

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
            self._learner = self._fresh()
            for part in self._recent:
                self._take(part)
        self.policy = replace(
            self.policy,
            vocabulary=tuple(self._learner.vocabulary),
            oracle=self._learner.oracle(),
            update=self.policy.update + 1,
            learned=self._learner.learned,
        )

    def _take(self, feedback: Dataset) -> None:
        self._learner.partial_fit(
            feedback.chosen_matrix(), feedback.chosen_actions(), feedback.reward, self._weigh(feedback)
        )


@dataclass(frozen=True)
class Batch:
    """How a generation is fitted.

    Attributes
    ----------
    oracle
        A name in ``training.fit.FITTERS``.
    lightgbm
        Settings of the trees, where these are fitted.
    seed
        Of the fit.
    """

    oracle: OracleName = "linear"
    lightgbm: LightGBMConfig = field(default_factory=LightGBMConfig)
    seed: int = 0

    def fit(self, train: Dataset, point: DecisionPoint) -> Fitted:
        """Fit the oracle of the next generation."""
        return FITTERS[self.oracle](train, point, self.lightgbm, self.seed)


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
        fit: Callable[[Dataset, DecisionPoint], Fitted],
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
