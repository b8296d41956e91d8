"""The learner of Online Cover: a few policies, each taught to like what those before it neglect.

Agarwal, Hsu, Kale, Langford, Li and Schapire, *Taming the Monster: A Fast and Simple Algorithm for Contextual Bandits*,
ICML 2014 (algorithm 5), in the form for changing sets of actions that Bietti, Agarwal and Langford use (*A Contextual
Bandit Bake-off*, JMLR 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from engine.config.oracle import CoverOracleConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Learner
from engine.oracles.columns import Columns
from engine.oracles.ensemble import EnsembleOfOracles
from engine.oracles.events import Events
from engine.oracles.linear import LinearLearner
from engine.oracles.nested import flat, integers, parts_of
from engine.oracles.reduction import RewardModel, estimates, inverse_propensity, offered_codes


class CoverLearner:
    """Learns N policies from whole decisions; ``exploration: cover`` makes a distribution of them.

    The first learns the chosen rows, weighted with 1 / p. Policy i of the others learns, for every available action a,
    the doubly robust estimate of its reward plus, in units of the range of rewards ::

        psi * least / (max(p_a, least) / norm)

    with p_a the share of the policies before it that choose a, least = min(1 / K, 1 / sqrt(K t)) after t decisions, and
    norm the sum of max(p, least). So an action that the others neglect looks better to it.

    Each decision is learned by itself: any split into batches gives the same policies, but for the reward model, which
    learns batch by batch (``engine.oracles.reduction.RewardModel``).

    Parameters
    ----------
    policies
        Learners of one kind that have learned nothing.
    columns
        The form of the rows.
    psi
        How much neglect is worth.
    floor
        Propensities below count as this.
    """

    kind: ClassVar[str] = "cover"

    def __init__(self, policies: Sequence[Learner], columns: Columns, *, psi: float = 0.1, floor: float = 0.01) -> None:
        self.policies = list(policies)
        self.columns = columns
        self.psi = psi
        self.floor = floor
        self.model = RewardModel(LinearLearner(columns.width))
        self.learned = 0

    @classmethod
    def from_config(cls, config: CoverOracleConfig, columns: Columns) -> CoverLearner:
        """Build it from ``policy.oracle``."""
        from engine.oracles.learners import learner_of

        policies = [learner_of(config.base, columns) for _ in range(config.policies)]
        return cls(policies, columns, psi=config.psi, floor=config.propensity_floor)

    @property
    def vocabulary(self) -> list[str]:
        """Ids of the actions with codes 1, 2, ... so far."""
        return self.policies[0].vocabulary

    @property
    def width(self) -> int:
        """Columns of X."""
        return self.columns.width

    def learn_events(self, events: Events) -> None:
        """Learn from decisions, in their order."""
        targets = estimates(events, self.floor, self.model.expect_and_learn(events))
        inverse = inverse_propensity(events, self.floor)
        views = [policy.live() for policy in self.policies]
        for i in range(len(events)):
            offered = np.arange(events.starts[i], events.starts[i + 1])[
                events.available[events.starts[i] : events.starts[i + 1]]
            ]
            self.learned += 1
            X, ids = events.X[offered], [events.actions[flat] for flat in offered]
            chosen = offered == events.chosen[i]
            count = len(offered)
            least = min(1.0 / count, 1.0 / math.sqrt(count * self.learned))
            p = np.zeros(count)
            norm = least * count
            ones = np.full(count, events.weights[i])
            for k, policy in enumerate(self.policies):
                if k == 0:
                    # All rows, so that every policy knows the same actions; those not chosen without weight.
                    policy.partial_fit(
                        X, ids, np.full(count, events.rewards[i]), np.where(chosen, ones * inverse[i], 0.0)
                    )
                else:
                    bonus = self.psi * least / (np.maximum(p, least) / norm)
                    unit = self.columns.high - self.columns.low
                    policy.partial_fit(X, ids, targets[offered] + unit * bonus, ones)
                best = int(np.argmax(views[k].predict(X, offered_codes(policy, ids))))
                before = max(p[best], least)
                p[best] += 1.0 / len(self.policies)
                norm += max(p[best], least) - before

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Refuse rows without their decisions; raises ``TypeError``."""
        raise TypeError("policy.oracle.kind: cover learns from whole decisions with their propensities")

    def oracle(self) -> EnsembleOfOracles:
        """Return what has been learned, as an oracle that no longer changes."""
        return EnsembleOfOracles([policy.oracle() for policy in self.policies], lead=True)

    def live(self) -> EnsembleOfOracles:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return EnsembleOfOracles([policy.live() for policy in self.policies], lead=True)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        c = self.columns
        return {
            **flat([*self.policies, self.model.learner]),
            "learned": np.array([self.learned]),
            "settings": np.array([c.context, c.action, c.low, c.high, self.psi, self.floor]),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> CoverLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        from engine.oracles.learners import STORED

        *policies, model = parts_of(arrays, STORED)
        settings: Float64 = np.array(arrays["settings"], dtype=np.float64)
        if not isinstance(model, LinearLearner) or not policies or settings.shape != (6,):
            raise ValueError("these are not the arrays of a cover learner")
        context, action, low, high, psi, floor = settings.tolist()
        learner = cls(policies, Columns(int(context), int(action), low, high), psi=psi, floor=floor)
        learner.model = RewardModel(model)
        (learner.learned,) = integers(arrays["learned"], 1)
        return learner
