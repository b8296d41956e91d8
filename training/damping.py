"""Damping: what is done to the next generation so that it does not undo the one before.

Each measure is one function of the data or of the fitted policy; ``DampingConfig`` switches them. What comes of them is
an ordinary policy, with its propensities as exact and its decisions as replayable as any other's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from engine.config import CapConfig, DecisionPoint, ExplorationConfig, FloorConfig
from engine.config.exploration import FastCBConfig, SquareCBConfig
from engine.exploration.schedule import power
from engine.oracles.mixture import follow
from engine.policy import Policy
from engine.records import generation_of
from training.config import DampingConfig
from training.dataset import Dataset, Float64
from training.stored import Feedbacks

#: A class is not weighed up by more than this.
_MOST_BALANCE = 20.0


def generations_of(rows: Dataset) -> Float64:
    """Return the generation that made each decision, shape (n,); 0 for decisions of other systems."""
    known: dict[str, int] = {}
    for version in set(rows.policy_version):
        try:
            known[version] = generation_of(version)
        except ValueError:
            known[version] = 0
    return np.fromiter((known[version] for version in rows.policy_version), np.float64, len(rows))


def row_weights(rows: Feedbacks, config: DampingConfig, reward_range: tuple[float, float]) -> Float64:
    """Return the weight of each feedback in fitting, shape (n,); their mean is 1.

    ``blend_decay`` to the power of how many generations ago, times ``1 / (K p)`` clipped at ``weight_cap``, times a
    factor that lets rewards above and below the middle of the range weigh alike.
    """
    rule = weighing_of(rows, config, reward_range)
    return np.concatenate([rule.weights(block) for block in rows.blocks()])


@dataclass(frozen=True)
class Weighing:
    """The rule by which feedback is weighed: what it takes from all rows stands in it, so that it holds for any part.

    Attributes
    ----------
    config
        What is weighed by.
    newest
        The newest generation.
    middle
        Of the reward's range.
    factors
        Of rewards up to the middle, and above it.
    mean
        Of the weights before they are divided by it.
    """

    config: DampingConfig
    newest: float = 0.0
    middle: float = 0.0
    factors: tuple[float, float] = (1.0, 1.0)
    mean: float = 1.0

    def weights(self, rows: Dataset) -> Float64:
        """Return the weight of each row, shape (n,)."""
        weights = np.ones(len(rows))
        if self.config.blend_decay < 1.0:
            weights *= self.config.blend_decay ** (self.newest - generations_of(rows))
        if self.config.weight_cap is not None:
            weights *= np.minimum(1.0 / (offered(rows) * rows.propensity), self.config.weight_cap)
        weights *= np.where(rows.reward > self.middle, self.factors[1], self.factors[0])
        normalised: Float64 = weights / self.mean
        return normalised


def weighing_of(rows: Feedbacks, config: DampingConfig, reward_range: tuple[float, float]) -> Weighing:
    """Return the rule that ``row_weights`` weighs some feedback by."""
    rule = Weighing(config, middle=sum(reward_range) / 2.0)
    if config.blend_decay < 1.0:
        rule = replace(rule, newest=max(float(generations_of(block).max()) for block in rows.blocks()))
    if config.balance_classes:
        weights = np.concatenate([rule.weights(block) for block in rows.blocks()])
        share = float(weights[rows.reward > rule.middle].sum() / weights.sum())
        if 0.0 < share < 1.0:
            factors = min(0.5 / (1.0 - share), _MOST_BALANCE), min(0.5 / share, _MOST_BALANCE)
            rule = replace(rule, factors=factors)
    weights = np.concatenate([rule.weights(block) for block in rows.blocks()])
    return replace(rule, mean=float(weights.mean()))


def offered(rows: Dataset) -> Float64:
    """Return the number of available actions of each decision, shape (n,)."""
    return np.add.reduceat(rows.available.astype(np.float64), rows.starts[:-1])


def damped_point(
    point: DecisionPoint, config: DampingConfig, *, learned: int, actions: float, calibration_error: float
) -> DecisionPoint:
    """Return the decision point with the exploration of a damped generation.

    Parameters
    ----------
    point
        As configured.
    config
        ``floor`` puts a least probability around the exploration. ``calibrated_gamma`` bounds gamma: with a mean square
        error ``e^2`` of the oracle, inverse gap weighting loses ``K / gamma + gamma e^2 / 4`` at most (Foster and
        Rakhlin, *Beyond UCB*, ICML 2020), which is least at ``gamma = 2 sqrt(K) / e``.
    learned
        Feedbacks that the policy was fitted on.
    actions
        Mean number of available actions, K.
    calibration_error
        Of the generation that acted, in units of reward; NaN where it is not known (gamma stays).
    """
    exploration = point.policy.exploration
    if config.calibrated_gamma and calibration_error > 0.0:
        low, high = point.reward.range
        most = 2.0 * math.sqrt(actions) * (high - low) / calibration_error
        exploration = _bounded(exploration, most, learned)
    if config.floor > 0.0:
        exploration = FloorConfig(kind="floor", epsilon=config.floor, inner=exploration)
    policy = point.policy.model_copy(update={"exploration": exploration})
    return point.model_copy(update={"policy": policy})


def _bounded(exploration: ExplorationConfig, most: float, learned: int) -> ExplorationConfig:
    if isinstance(exploration, FloorConfig | CapConfig):
        return exploration.model_copy(update={"inner": _bounded(exploration.inner, most, learned)})
    if isinstance(exploration, SquareCBConfig | FastCBConfig):
        gamma = power(exploration.gamma_scale, exploration.gamma_exponent, learned)
        if gamma > most:
            return exploration.model_copy(update={"gamma_scale": most, "gamma_exponent": 0.0})
    return exploration


def gamma_of(policy: Policy) -> float:
    """Return the greediness with which a policy serves; NaN where its exploration has none."""
    exploration = policy.point.policy.exploration
    while isinstance(exploration, FloorConfig | CapConfig):
        exploration = exploration.inner
    if isinstance(exploration, SquareCBConfig | FastCBConfig):
        return power(exploration.gamma_scale, exploration.gamma_exponent, policy.learned)
    return math.nan


def mixed(policy: Policy, before: Policy | None, config: DampingConfig) -> Policy:
    """Return a policy whose oracle is the average of its own with those of the generations before.

    It stays as it is where there is nothing before it, or where its exploration needs more of an oracle than the mean,
    which an average does not have.
    """
    learned_before = before is not None and before.learned > 0
    if not config.mixes or before is None or not learned_before or policy.exploration.needs - {"rows"}:
        return policy
    low, high = policy.point.reward.range
    oracle, vocabulary = follow(
        before.oracle,
        before.vocabulary,
        policy.oracle,
        policy.vocabulary,
        share=config.mixture,
        max_change=math.inf if config.max_change is None else config.max_change * (high - low),
        dead_band=config.dead_band * (high - low),
        members=config.mixture_members,
    )
    return replace(policy, oracle=oracle, vocabulary=vocabulary)
