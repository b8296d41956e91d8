"""The classical models day by day: they learn what they can see, look at no label before they score it, and repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks._temporal_generator import GeneratedSessions, World
from engine.recommender.space import FieldSpace
from training.baselines import LightGBM, LogisticRegression, Popularity
from training.baselines.popularity import DecayedRates
from training.sessions import DayModel, Sessions
from training.sessions.metrics import auc

SOURCE = GeneratedSessions(5, World(days=4, sessions=600, users=800, items=200))
SPACE = FieldSpace(SOURCE.user, SOURCE.item).fitted(chunk for day in (0, 1) for chunk in SOURCE.read(day, 600))
MODELS: dict[str, Callable[[], DayModel]] = {
    "popularity": lambda: Popularity("item_id"),
    "logistic": lambda: LogisticRegression(SPACE),
    "lightgbm": lambda: LightGBM(SPACE, trees=20),
}


def played(model: DayModel, days: Sequence[Sequence[Sessions]]) -> list[np.ndarray]:
    """Return the scores of each day, each before it is learned."""
    found = []
    for day in days:
        found.append(np.concatenate([np.reshape(model.score(chunk), (len(chunk), -1)) for chunk in day]))
        model.learn(day)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_model_ranks_the_next_day_and_does_not_know_it(name: str) -> None:
    days = [list(SOURCE.read(day, 200)) for day in SOURCE.days()]
    scores = played(MODELS[name](), days)
    labels = [np.concatenate([chunk.labels[:, 0] for chunk in day]) for day in days]
    assert np.ptp(scores[0]) == 0.0
    assert np.mean([auc(y, s[:, 0]) for y, s in zip(labels[1:], scores[1:], strict=True)]) > 0.56
    # Turning the labels of the last day changes nothing in its scores, and equal runs are equal.
    turned = [*days[:-1], [replace(chunk, labels=1.0 - chunk.labels) for chunk in days[-1]]]
    for one, other in zip(scores, played(MODELS[name](), turned), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_scores_do_not_depend_on_how_a_day_is_cut(name: str) -> None:
    model = MODELS[name]()
    model.learn(SOURCE.read(0, 600))
    whole = np.concatenate([model.score(chunk) for chunk in SOURCE.read(1, 600)])
    parts = np.concatenate([model.score(chunk) for chunk in SOURCE.read(1, 7)])
    np.testing.assert_allclose(whole, parts, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("kind", [LogisticRegression, LightGBM])
def test_each_task_has_a_model_of_its_own(kind: type[LogisticRegression] | type[LightGBM]) -> None:
    both = [
        replace(chunk, labels=np.concatenate([chunk.labels, 1.0 - chunk.labels], axis=1))
        for chunk in SOURCE.read(0, 600)
    ]
    model = kind(SPACE, tasks=2)
    model.learn(both)
    scores = model.score(both[0])
    first, second = scores.T
    assert float(np.corrcoef(first, second).min()) < -0.9


def test_rates_are_drawn_to_the_mean_and_the_past_fades() -> None:
    rates = DecayedRates(tasks=1, decay=0.5, prior=10.0)
    rates.add(np.array(["a"] * 30 + ["b"] * 10), np.array([[1.0]] * 30 + [[0.0]] * 10))
    found, shown = rates.rates(["a", "b", "new"])
    assert found[:, 0].tolist() == pytest.approx([(30 + 7.5) / 40, 7.5 / 20, 0.75])
    assert shown.tolist() == [30.0, 10.0, 0.0]
    rates.pass_day()
    rates.add(["a"] * 15, np.zeros((15, 1)))
    assert rates.rates(["a"])[0][0, 0] == pytest.approx((15 + 10 * 15 / 35) / 40)
    for _ in range(10):
        rates.pass_day()
    assert rates.rates(["a", "b"])[1].tolist() == [0.0, 0.0]  # forgotten
