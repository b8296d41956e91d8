"""Empirical risk minimisation on logged propensities: decisions become rows that any learner learns.

Beygelzimer and Langford, *The Offset Tree for Learning with Partial Labels*, KDD 2009 (importance weighting); Dudik,
Langford and Li, *Doubly Robust Policy Evaluation and Learning*, ICML 2011; Bietti, Agarwal and Langford, *A Contextual
Bandit Bake-off*, JMLR 2021 (``mtr``: importance-weighted regression on what was chosen).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast, get_args

import numpy as np

from engine.features import Float32
from engine.oracles.background import BackgroundLearner, Worker
from engine.oracles.base import Arrays, Float64, Int64, Learner, Oracle
from engine.oracles.events import Events
from engine.oracles.linear import LinearLearner
from engine.oracles.nested import flat, integers, parts_of, read_text, text

Learning = Literal["plain", "ips", "mtr", "dr"]
Rows = tuple[Float32, list[str], Float64, Float64]


def inverse_propensity(events: Events, floor: float) -> Float64:
    """Return 1 / propensity of each decision, no propensity counted below ``floor``."""
    return 1.0 / np.maximum(events.propensity, floor)


def estimates(events: Events, floor: float, expected: Float64) -> Float64:
    """Return an estimate of the reward of every offered action, shape (m,).

    ``expected`` + 1{chosen} (r - ``expected``) / p: doubly robust with a model's expectations, inverse propensity
    scoring with a constant. Its mean over the draw of the action is the expected reward, whatever ``expected`` is, as
    far as no propensity lies below the floor.
    """
    targets: Float64 = expected.copy()
    at = events.chosen
    targets[at] += (events.rewards - expected[at]) * inverse_propensity(events, floor)
    return targets


def reduce(events: Events, learning: Learning, *, floor: float, low: float, expected: Float64 | None = None) -> Rows:
    """Return rows to learn from: X, action ids, targets, weights.

    Parameters
    ----------
    events
        What was decided.
    learning
        ``plain``: the chosen rows as they are; ``mtr``: weighted with 1 / p; ``ips`` and ``dr``: every available
        action with an estimate of its reward, from the low end of the range or from ``expected``.
    floor
        Propensities below count as this: bias for variance.
    low
        Low end of the rewards' range.
    expected : ndarray of float64, shape (m,)
        A model's expected reward of every offered action; ``dr`` needs it.
    """
    if learning in ("plain", "mtr"):
        weights = events.weights if learning == "plain" else events.weights * inverse_propensity(events, floor)
        return events.X[events.chosen], events.chosen_actions(), events.rewards, weights
    if learning == "ips":
        expected = np.full(len(events.actions), low)
    elif expected is None:
        raise ValueError("doubly robust learning needs the expected rewards of a model")
    offered = np.flatnonzero(events.available)
    weights = np.repeat(events.weights, np.diff(events.starts))[offered]
    ids = [events.actions[flat] for flat in offered]
    return events.X[offered], ids, estimates(events, floor, expected)[offered], weights


class RewardModel:
    """The model of doubly robust targets: the per-action ridge regression, learned from the chosen rows.

    It predicts a batch before it learns from it, so that no reward stands in its own expectation; how feedback falls
    into batches therefore changes what is learned (a little).
    """

    def __init__(self, learner: LinearLearner) -> None:
        self.learner = learner

    def expect_and_learn(self, events: Events) -> Float64:
        """Return the expected reward of every offered action, then learn from the chosen ones."""
        code = {action: i for i, action in enumerate(self.learner.vocabulary, start=1)}
        codes = np.fromiter((code.get(action, 0) for action in events.actions), np.int64, len(events.actions))
        expected = self.learner.oracle().predict(events.X, codes)
        self.learner.partial_fit(events.X[events.chosen], events.chosen_actions(), events.rewards, events.weights)
        return expected


class ReducedLearner:
    """A learner that learns from whole decisions by a reduction; ``policy.learning`` says which.

    Parameters
    ----------
    learner
        What learns the rows.
    learning, floor, low
        See ``reduce``.
    model
        Of ``dr``.
    """

    kind: ClassVar[str] = "reduced"

    def __init__(
        self, learner: Learner, learning: Learning, *, floor: float, low: float, model: RewardModel | None = None
    ) -> None:
        self.learner = learner
        self.learning = learning
        self.floor = floor
        self.low = low
        self.model = model or RewardModel(LinearLearner(learner.width))
        self.learned = 0

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""
        return self.learner.vocabulary

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.learner.width

    def learn_events(self, events: Events) -> None:
        """Learn from decisions, in their order."""
        expected = self.model.expect_and_learn(events) if self.learning == "dr" else None
        self.learner.partial_fit(*reduce(events, self.learning, floor=self.floor, low=self.low, expected=expected))
        self.learned += len(events)

    def work_in(self, worker: Worker) -> None:
        """Let a worker do what takes the learner long; see ``BackgroundLearner``."""
        if isinstance(self.learner, BackgroundLearner):
            self.learner.work_in(worker)

    def settle(self) -> bool:
        """Take over what is ready; see ``BackgroundLearner``."""
        return isinstance(self.learner, BackgroundLearner) and self.learner.settle()

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Refuse rows without their decisions, unless the learning is plain; raises ``TypeError``."""
        if self.learning != "plain":
            raise TypeError(f"policy.learning: {self.learning} needs whole decisions with their propensities")
        self.learner.partial_fit(X, actions, rewards, weights)
        self.learned += len(actions)

    def oracle(self) -> Oracle:
        """Return what has been learned, as an oracle that no longer changes."""
        return self.learner.oracle()

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned."""
        return self.learner.live()

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        return {
            **flat([self.learner, self.model.learner]),
            "learning": text(self.learning),
            "settings": np.array([self.floor, self.low]),
            "decisions": np.array([self.learned]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> ReducedLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        from engine.oracles.learners import STORED

        learner, model = parts_of(arrays, STORED)
        learning, settings = read_text(arrays["learning"]), np.array(arrays["settings"], dtype=np.float64)
        if learning not in get_args(Learning) or settings.shape != (2,) or not isinstance(model, LinearLearner):
            raise ValueError("these are not the arrays of a learner by reduction")
        floor, low = settings.tolist()
        made = cls(learner, cast(Learning, learning), floor=floor, low=low, model=RewardModel(model))
        (made.learned,) = integers(arrays["decisions"], 1)
        return made


def offered_codes(learner: Learner, actions: Sequence[str]) -> Int64:
    """Return the codes that a learner's oracle knows actions by."""
    code = {action: i for i, action in enumerate(learner.vocabulary, start=1)}
    return np.fromiter((code.get(action, 0) for action in actions), np.int64, len(actions))
