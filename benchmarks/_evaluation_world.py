"""Synthetic logs whose truth is a finite sum: contexts of so many kinds, a table of mean rewards, two policies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import LoggedRows

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
KINDS = 40


@dataclass(frozen=True)
class Sample:
    """So many decisions: the kind of context, the action and the reward of each."""

    kind: Int64
    action: Int64
    reward: Float64


@dataclass(frozen=True)
class World:
    """Kinds of contexts come alike often; rewards are 0 or 1.

    Attributes
    ----------
    mean, logging, target, q_hat : ndarray of float64, shape (kinds, actions)
        Mean rewards, the two policies, and a reward model with errors of its own.
    cluster : ndarray of int64, shape (actions,)
        Groups of actions.
    """

    mean: Float64
    logging: Float64
    target: Float64
    q_hat: Float64
    cluster: Int64

    def value(self, policy: Float64) -> float:
        """Return the true mean reward of a policy."""
        return float((policy * self.mean).sum(axis=1).mean())

    @property
    def truth(self) -> float:
        """Mean reward of the target policy."""
        return self.value(self.target)

    @property
    def max_weight(self) -> float:
        return float((self.target / self.logging).max())

    def sample(self, n: int, seed: int) -> Sample:
        rng = np.random.default_rng(seed)
        kind = rng.integers(len(self.mean), size=n)
        cumulative = self.logging.cumsum(axis=1)[kind]
        action = (cumulative < rng.random((n, 1))).sum(axis=1).clip(max=self.mean.shape[1] - 1)
        reward = (rng.random(n) < self.mean[kind, action]).astype(np.float64)
        return Sample(kind, action, reward)

    def rows(self, sample: Sample, target: Float64 | None = None, q_hat: Float64 | None = None) -> LoggedRows:
        """Return a sample as rows; by default for the target policy and with the world's reward model."""
        n, actions = len(sample.kind), self.mean.shape[1]
        wanted = self.target if target is None else target
        return LoggedRows(
            starts=np.arange(n + 1) * actions,
            chosen=np.arange(n) * actions + sample.action,
            reward=sample.reward,
            logged=self.logging[sample.kind].ravel(),
            target=wanted[sample.kind].ravel(),
            q_hat=(self.q_hat[sample.kind] if q_hat is None else q_hat).ravel(),
            cluster=np.tile(self.cluster, n),
        )


def softmax(scores: Float64) -> Float64:
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def floored(policy: Float64, share: float) -> Float64:
    """Mix a share of the uniform draw in."""
    return np.asarray((1.0 - share) * policy + share / policy.shape[1])


def world(*, actions: int = 5, rate: float = 0.5, greed: float = 2.0, share: float = 0.2, seed: int = 1) -> World:
    """Return a world in which the logging policy is greedy for scores that are partly wrong.

    Parameters
    ----------
    actions
        How many.
    rate
        About the mean reward.
    greed
        Of the logging policy; the greater, the heavier the tail of the weights.
    share
        Of the uniform draw in the logging policy.
    seed
        Of the tables.
    """
    rng = np.random.default_rng(seed)
    cluster = np.arange(actions) // 2
    score = rng.normal(size=(KINDS, actions))
    mean = 1.0 / (1.0 + np.exp(-(np.log(rate / (1.0 - rate)) + 0.8 * score)))
    wrong = rng.normal(size=(KINDS, actions))
    return World(
        mean=mean,
        logging=floored(softmax(greed * (0.3 * score + wrong)), share),
        target=floored(softmax(2.0 * score), 0.05),
        q_hat=np.clip(mean + rng.normal(scale=0.3 * rate, size=mean.shape), 0.0, 1.0),
        cluster=cluster,
    )


#: By name: weights as a policy with a floor leaves them, and a heavy tail of them.
WORLDS = {"mild weights": world(), "heavy tail": world(greed=3.0, share=0.05, actions=10)}
