"""The ranking metrics against scikit-learn, and ties against every order of the rows that tie."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, roc_auc_score

from training.sessions.metrics import auc, gauc, mrr, ndcg, ranking

SESSIONS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=5), min_size=1, max_size=5
)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_auc_and_ndcg_are_those_of_scikit_learn_with_ties_and_without(levels: int) -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(600) < 0.3).astype(np.float64)
    s = rng.integers(0, levels, 600) / levels
    session = rng.integers(0, 60, 600)  # rows of a session lie apart
    assert auc(y, s) == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    each, gains = [], []
    for i in np.unique(session):
        mine = session == i
        each.append(roc_auc_score(y[mine], s[mine]) if 0.0 < y[mine].mean() < 1.0 else np.nan)
        gains.append(ndcg_score([y[mine]], [s[mine]], k=5) if y[mine].any() and mine.sum() > 1 else 1.0)
    assert np.isnan(each).any()
    assert gauc(y, s, session) == pytest.approx(np.nan_to_num(each, nan=0.5).mean(), abs=1e-12)
    assert gauc(y, s, session, mixed_only=True) == pytest.approx(np.nanmean(each), abs=1e-12)
    assert ndcg(y, s, session) == pytest.approx(np.mean(gains), abs=1e-12)


def test_mrr_is_that_of_scikit_learn_where_each_session_has_one_positive() -> None:
    rng = np.random.default_rng(2)
    scores, y = rng.random((50, 12)), np.zeros((50, 12))
    y[np.arange(50), rng.integers(0, 12, 50)] = 1.0
    expected = label_ranking_average_precision_score(y, scores)
    assert mrr(y.ravel(), scores.ravel(), np.repeat(np.arange(50), 12)) == pytest.approx(expected, abs=1e-12)


def in_one_order(y: list[int]) -> tuple[float, float | None]:
    """Return NDCG@5 and the reciprocal rank of labels in the order of a ranking."""
    discounts = [1.0 / np.log2(rank + 2.0) for rank in range(5)]
    ideal = sum(d * v for d, v in zip(discounts, sorted(y, reverse=True), strict=False))
    found = sum(d * v for d, v in zip(discounts, y, strict=False))
    return (found / ideal if ideal else 1.0), (1.0 / (y.index(1) + 1) if 1 in y else None)


@settings(max_examples=60, deadline=None)
@given(SESSIONS)
def test_ties_count_as_the_mean_over_all_their_orders(sessions: list[list[tuple[int, int]]]) -> None:
    gains, ranks = [], []
    for rows in sessions:
        orders = [order for order in permutations(rows) if all(a[1] >= b[1] for a, b in pairwise(order))]
        told = [in_one_order([y for y, _ in order]) for order in orders]
        gains.append(np.mean([gain for gain, _ in told]))
        if told[0][1] is not None:
            ranks.append(np.mean([rank for _, rank in told if rank is not None]))
    y = [label for rows in sessions for label, _ in rows]
    s = [score for rows in sessions for _, score in rows]
    session = [i for i, rows in enumerate(sessions) for _ in rows]
    assert ndcg(y, s, session) == pytest.approx(np.mean(gains), abs=1e-9)
    assert mrr(y, s, session) == pytest.approx(np.mean(ranks) if ranks else np.nan, abs=1e-9, nan_ok=True)


def test_all_of_them_at_once_say_what_they_are_made_of() -> None:
    found = ranking([1, 0, 0, 0, 1], [2.0, 1.0, 5.0, 4.0, 0.0], [7, 7, 3, 3, 9])
    assert (found.rows, found.sessions, found.mixed) == (5, 3, 1)
    assert [found.gauc, found.gauc_mixed, found.ndcg, found.mrr] == pytest.approx([2.0 / 3.0, 1.0, 1.0, 1.0])
    assert np.isnan(ranking([], [], []).auc)


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [([0, 2], [0.0, 1.0], "0 or 1, got 2"), ([0, 1], [0.0, np.nan], "row 1 has nan"), ([0, 1], [0.0], "one length")],
)
def test_what_cannot_be_ranked_is_refused(labels: list[float], scores: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ranking(labels, scores, [0] * len(labels))
