"""How likely a policy would have made a logged list: what off-policy evaluation weighs lists by."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import logged_candidates, logged_user, score
from engine.records import Decision

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What a policy would have done with the candidates of a logged list.

    Attributes
    ----------
    first : ndarray of float64, shape (n_candidates,)
        The vector of the first slot.
    propensities : ndarray of float64, shape (n_slots,)
        Probability of each slot's logged item, given the logged items before it.
    marginals : ndarray of float64, shape (n_slots,)
        Probability of each slot's logged item, whatever stands before it; see ``engine.slates.marginals``.
    expected : ndarray of float64, shape (n_slots,), or None
        Expected reward of each slot's item; ``None`` before any training.
    covered : float
        Share of the items that the policy itself would have retrieved for as many slots and that were candidates; 1
        where the candidates were named.
    """

    first: Float64
    propensities: Float64
    marginals: Float64
    expected: Float64 | None
    covered: float


def likelihood(policy: RecommenderPolicy, decision: Decision) -> Likelihood:
    """Return the likelihood of a logged list under a policy.

    The candidates are taken as they were logged: which items another policy would have retrieved beside them is not
    part of it, and ``covered`` says how much that may be.

    Raises
    ------
    InvalidRequest
        The logged request does not fit the policy's fields.
    OracleFailure
        The model fails.
    """
    items = list(decision.slate.items)
    candidates = logged_candidates(policy, decision)
    free = np.flatnonzero(candidates.available)
    first = np.zeros(len(candidates.available))
    if policy.model is None:
        first[free] = 1.0 / len(free)
        uniform = np.full(len(items), 1.0 / len(free))
        return Likelihood(first, 1.0 / (len(free) - np.arange(len(items))), uniform, None, 1.0)
    user = logged_user(policy, decision)
    expected = score(policy, user, candidates)
    prediction = policy.prediction(expected[free])
    places = np.searchsorted(free, items).tolist()
    first[free] = policy.drawing.exploration.pmf(prediction, policy.learned)
    propensities = policy.drawing.propensities(prediction, policy.learned, places)
    marginals = policy.drawing.marginals(prediction, policy.learned, places, crc32(decision.decision_id.encode()))
    covered = 1.0
    if decision.slate.retrieved and policy.catalogue is not None:
        wanted = policy.retrieve(user, min(len(items), len(policy.catalogue)))
        covered = float(np.isin(wanted, candidates.rows).mean()) if len(wanted) else 1.0
    return Likelihood(first, propensities, marginals, expected[items], covered)
