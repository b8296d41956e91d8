"""The probability vectors of a policy on logged feedback: the same, bit for bit, as it would have served."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from engine.features import Encoded
from engine.policy import Policy
from engine.prediction import Prediction
from training.dataset import Dataset
from training.evaluation.base import Float64

_CHUNK = 4_096  # rows whose pairs are in memory at once


def chunks(dataset: Dataset) -> Iterator[tuple[slice, Dataset]]:
    """Yield the dataset piece by piece, each with the slice of its flat rows: ``pairs`` of all at once is large."""
    for begin in range(0, len(dataset), _CHUNK):
        part = dataset.rows(slice(begin, begin + _CHUNK))
        first = int(dataset.starts[begin])
        yield slice(first, first + int(part.starts[-1])), part


def policy_prediction(policy: Policy, dataset: Dataset) -> Prediction:
    """Return what the policy predicts of every offered action, flat; raises ``engine.policy.OracleFailure``."""
    parts = [
        policy.predict(Encoded(part.pairs(), part.codes(policy.vocabulary), part.available))
        for _, part in chunks(dataset)
    ]
    return Prediction.concatenate(parts)


def pmf_of_prediction(policy: Policy, dataset: Dataset, prediction: Prediction) -> Float64:
    """Return the policy's probability of every offered action given its predictions, shape (m,).

    Through ``Policy.pmf_each``, as a batch of requests is answered, and each to the bit as a single one: one definition
    of the vector, and no second one that could come to differ from it.
    """
    p = np.empty(len(prediction.mean))
    for begin in range(0, len(dataset), _CHUNK):
        starts = dataset.starts[begin : begin + _CHUNK + 1]
        first, last = int(starts[0]), int(starts[-1])
        available = dataset.available[first:last]
        ends = (starts[1:] - first).tolist()
        free = None if available.all() else [available[a:b] for a, b in pairwise([0, *ends])]
        p[first:last] = np.concatenate(policy.pmf_each(prediction.take(slice(first, last)), ends, free))
    return p


def policy_pmf(policy: Policy, dataset: Dataset) -> Float64:
    """Return the policy's probability of every offered action, shape (m,); raises ``OracleFailure``."""
    return pmf_of_prediction(policy, dataset, policy_prediction(policy, dataset))
