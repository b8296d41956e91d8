"""The ledger of generations as a table: what each was expected to earn and earned, how far policies are apart, and
whether they oscillate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from engine.policy import OracleFailure, Policy
from engine.records import Generation, GenerationStatistics
from monitoring.attribution import Attribution, attribute
from monitoring.generations import (
    calibration_error,
    mean_entropy,
    mean_reward,
    positive_share,
    reward_distance,
    standard_error,
    support,
)
from monitoring.oscillation import LEAST, Float64, Oscillation, judge, level_at
from training.config import DampingConfig
from training.damping import gamma_of
from training.dataset import Dataset
from training.evaluation.target import policy_pmf
from training.stored import Feedbacks

#: Requests of the reference set.
REFERENCE = 256
_HASHED = 65_536  # ids that are objects of Python at once
#: Fewest feedbacks of a generation that is judged.
LEAST_FEEDBACK = 100
#: Half the width of a 95 % interval, in standard errors.
_95 = 1.959964

Load = Callable[[str], Policy | None]


@dataclass(frozen=True)
class GenerationRow:
    """One generation while it acted.

    Attributes
    ----------
    generation, policy_version, reason, verdict
        From its entry in the ledger; empty where it has none, as the policy before any training.
    feedback
        How many.
    reward, error
        Mean reward and its standard error.
    estimate, estimate_error
        What the gate expected of it, and the standard error of that; NaN where it is not known.
    positives
        Share of rewards above the middle of the range.
    reward_distance
        Total variation distance of its rewards from those of the generation before.
    entropy
        Mean entropy of its vectors, in nats.
    support
        Effective sample size of its log for the uniform policy, as a share.
    calibration
        Root mean square distance of predicted and earned reward.
    gamma
        Greediness; NaN where its exploration has none.
    distances
        Mean total variation distance of its vectors on the reference set from those of earlier generations, by number.
    """

    generation: int
    policy_version: str
    reason: str
    verdict: str
    feedback: int
    reward: float
    error: float
    estimate: float
    estimate_error: float
    positives: float
    reward_distance: float
    entropy: float
    support: float
    calibration: float
    gamma: float
    distances: Mapping[int, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean reward."""
        return self.reward - _95 * self.error, self.reward + _95 * self.error

    @property
    def kept(self) -> str:
        """How reward and estimate compare, at 95 %: ``below``, ``as estimated`` or ``above``; empty without one."""
        reach = _95 * math.hypot(self.error, self.estimate_error)
        away = self.reward - self.estimate
        if not (math.isfinite(away) and math.isfinite(reach)):
            return ""
        return "as estimated" if abs(away) <= reach else ("below" if away < 0.0 else "above")


@dataclass(frozen=True)
class OscillationState:
    """Where a ledger stands.

    Attributes
    ----------
    judged
        The last look at it.
    declared
        Number of the generation after which an oscillation was declared; ``None``: none is, or it is over.
    damped
        Whether the next generation is to be damped.
    """

    judged: Oscillation | None
    declared: int | None
    damped: bool


@dataclass(frozen=True)
class GenerationTable:
    """All generations of a decision point that are known."""

    rows: list[GenerationRow]
    state: OscillationState
    attribution: list[Attribution]


def reference_set(rows: Feedbacks, count: int = REFERENCE) -> Dataset:
    """Return the requests on which policies are compared: those whose decision ids have the least hashes.

    Which they are depends on nothing else, so that more rows change few of them.
    """
    ids = rows.decision_ids().cast(pa.large_binary())
    parts = (ids.slice(begin, _HASHED).to_pylist() for begin in range(0, len(ids), _HASHED))
    # As whole numbers, which are in the order of the bytes, and found without sorting all of them.
    hashes = np.frombuffer(
        b"".join(b"".join([hashlib.blake2b(key, digest_size=8).digest() for key in part]) for part in parts), ">u8"
    ).astype(np.uint64)
    among = np.arange(len(hashes))
    if len(hashes) > count:
        among = np.flatnonzero(hashes <= np.partition(hashes, count)[count])
    chosen = np.sort(among[np.argsort(hashes[among], kind="stable")[:count]])
    return rows.take(chosen)


def vectors_of(policy: Policy | None, reference: Dataset) -> Float64 | None:
    """Return a policy's vectors on the reference set, flat; ``None`` where it cannot be had or its oracle fails."""
    if policy is None:
        return None
    try:
        return policy_pmf(policy, reference)
    except OracleFailure:
        return None


def distances(vectors: Sequence[Float64 | None], reference: Dataset) -> Float64:
    """Return the mean total variation distance of any two policies, shape (G, G); NaN where one is missing."""
    n = len(vectors)
    apart = np.full((n, n), np.nan)
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors[: i + 1]):
            if one is not None and other is not None:
                apart[i, j] = apart[j, i] = 0.5 * float(np.abs(one - other).sum()) / len(reference)
    return apart


def state_of(
    numbers: Sequence[int], reward: Float64, error: Float64, apart: Float64 | None, config: DampingConfig
) -> OscillationState:
    """Go through a ledger as it grew and say where it stands; a pure function of it.

    Looks are those of ``monitoring.oscillation.level_at``. Once declared, an oscillation is damped for so many
    generations as configured; then the ledger begins anew, with a level of its own.

    Parameters
    ----------
    numbers, reward, error
        Of the generations that are judged, oldest first: their numbers, mean rewards and standard errors.
    apart : ndarray of float64, shape (G, G), or None
        Distances of their policies.
    config
        ``when``, ``level`` and ``generations``.
    """
    begin = 0
    last: Oscillation | None = None
    n = len(reward)
    while True:
        found = None
        for stop in range(begin + LEAST, n + 1):
            level = level_at(stop - begin, config.level)
            if level > 0.0:
                part = slice(begin, stop)
                last = judge(reward[part], error[part], None if apart is None else apart[part, part], level=level)
                if last.declared:
                    found = stop
                    break
        if found is None:
            return OscillationState(last, None, config.when == "always")
        if found + config.generations > n:
            return OscillationState(last, numbers[found - 1], config.when != "never")
        begin = found + config.generations


def table(
    entries: Sequence[Generation],
    statistics: Sequence[GenerationStatistics],
    config: DampingConfig,
    load: Load = lambda _: None,
    reference: Dataset | None = None,
) -> GenerationTable:
    """Put the ledger together.

    Parameters
    ----------
    entries
        What training wrote of one decision point, oldest first; those that were refused never acted, and are left out.
    statistics
        What the generations did while they acted.
    config
        The damping.
    load
        Returns the policy of a version, or ``None`` where it is gone.
    reference
        The requests on which policies are compared; without them their distances are not known.
    """
    promoted = {entry.generation: entry for entry in entries if entry.promoted}
    acted = sorted(statistics, key=lambda each: each.generation)
    policies = [
        load(promoted[each.generation].policy_version) if each.generation in promoted else None for each in acted
    ]
    comparable = reference is not None and len(reference) > 0
    vectors = [vectors_of(policy, reference) if comparable and reference else None for policy in policies]
    apart = distances(vectors, reference) if comparable and reference else np.full((len(acted), len(acted)), np.nan)
    rows = []
    for i, each in enumerate(acted):
        entry = promoted.get(each.generation)
        policy = policies[i]
        known = entry is not None and entry.run_id != ""
        rows.append(
            GenerationRow(
                generation=each.generation,
                policy_version="" if entry is None else entry.policy_version,
                reason="" if entry is None else entry.reason,
                verdict="" if entry is None else entry.verdict,
                feedback=each.feedback,
                reward=mean_reward(each),
                error=standard_error(each),
                estimate=entry.estimate if entry is not None and known else math.nan,
                estimate_error=entry.estimate_error if entry is not None and known else math.nan,
                positives=positive_share(each),
                reward_distance=reward_distance(acted[i - 1], each) if i else math.nan,
                entropy=mean_entropy(each),
                support=support(each),
                calibration=calibration_error(each),
                gamma=math.nan if policy is None else gamma_of(policy),
                distances={acted[j].generation: float(apart[i, j]) for j in range(i) if np.isfinite(apart[i, j])},
            )
        )
    # What acted as a canary alone is no link of the chain.
    judged = [i for i, row in enumerate(rows) if row.generation in promoted and row.feedback >= LEAST_FEEDBACK]
    reward = np.array([rows[i].reward for i in judged])
    error = np.array([rows[i].error for i in judged])
    state = state_of([rows[i].generation for i in judged], reward, error, apart[np.ix_(judged, judged)], config)
    return GenerationTable(rows, state, attribute(reward, drivers(rows, judged)))


def drivers(rows: Sequence[GenerationRow], judged: Sequence[int]) -> dict[str, list[float]]:
    """Return what may drive the rewards of the judged rows, by name.

    ``class_imbalance``: share of positives in the log of the generation before, which it was trained on;
    ``reward_shift``: how far the rewards of that log are from those of the one before; ``support``: of that log;
    ``gamma`` and ``calibration``: its own.
    """

    def before(i: int, steps: int) -> GenerationRow:
        return rows[max(0, i - steps)]

    return {
        "class_imbalance": [before(i, 1).positives for i in judged],
        "reward_shift": [0.0 if i < 2 else before(i, 1).reward_distance for i in judged],
        "support": [before(i, 1).support for i in judged],
        "gamma": [rows[i].gamma for i in judged],
        "calibration": [rows[i].calibration for i in judged],
    }
