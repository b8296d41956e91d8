"""The probability vectors of a policy on logged feedback: the same, bit for bit, as it would have served."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from engine.features import Encoded
from engine.policy import Policy
from training.dataset import Dataset
from training.evaluation.base import Float64

_CHUNK = 4_096  # rows whose pairs are in memory at once


def chunks(dataset: Dataset) -> Iterator[tuple[slice, Dataset]]:
    """Yield the dataset piece by piece, each with the slice of its flat rows: ``pairs`` of all at once is large."""
    for begin in range(0, len(dataset), _CHUNK):
        part = dataset.rows(slice(begin, begin + _CHUNK))
        first = int(dataset.starts[begin])
        yield slice(first, first + int(part.starts[-1])), part


def policy_scores(policy: Policy, dataset: Dataset) -> Float64:
    """Return the policy's score of every offered action, shape (m,); raises ``engine.policy.OracleFailure``."""
    scores = np.empty(int(dataset.starts[-1]))
    for flat, part in chunks(dataset):
        scores[flat] = policy.scores(Encoded(part.pairs(), part.codes(policy.vocabulary), part.available))
    return scores


def pmf_of_scores(policy: Policy, dataset: Dataset, scores: Float64) -> Float64:
    """Return the policy's probability of every offered action given its scores, shape (m,).

    Row by row through ``Policy.pmf``, as a request is answered: one definition of the vector, and no second one
    that could come to differ from it.
    """
    p = np.empty(len(scores))
    for start, stop in pairwise(dataset.starts.tolist()):
        p[start:stop] = policy.pmf(scores[start:stop], dataset.available[start:stop])
    return p


def policy_pmf(policy: Policy, dataset: Dataset) -> Float64:
    """Return the policy's probability of every offered action, shape (m,); raises ``OracleFailure``."""
    return pmf_of_scores(policy, dataset, policy_scores(policy, dataset))
