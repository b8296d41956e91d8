"""Groups of actions, by what is known of them: the embedding of ``MIPS``."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

from training.dataset import Dataset
from training.evaluation.base import Int64


def clusters_of(dataset: Dataset, count: int, seed: int = 0) -> Int64:
    """Group the offered actions by their features with k-means (Lloyd 1982), shape (m,).

    Each action id stands for the mean of its encoded features over the rows, so that it is in one group throughout.

    Parameters
    ----------
    dataset
        The rows.
    count
        How many groups, at most the number of action ids.
    seed
        Of the first centres.

    Raises
    ------
    ValueError
        The actions have no features, or there is no such number of groups.
    """
    ids, code = np.unique(dataset.action_ids.astype(str), return_inverse=True)
    if dataset.action.shape[1] == 0:
        raise ValueError("the actions have no features to group them by; declare some under actions.features")
    if not 1 <= count <= len(ids):
        raise ValueError(f"{count} groups of {len(ids)} actions cannot be made; choose from 1 to {len(ids)}")
    sums = np.zeros((len(ids), dataset.action.shape[1]))
    np.add.at(sums, code, dataset.action.astype(np.float64))
    means = sums / np.bincount(code)[:, None]
    return np.asarray(KMeans(count, n_init=4, random_state=seed).fit_predict(means)[code], dtype=np.int64)
