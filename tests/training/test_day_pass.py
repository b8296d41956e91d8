"""The day pass of ELBO_TDS over the archive of a recommender, and what of it is served."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from engine.client import recommend_request
from engine.config import WRITTEN, Recommender
from engine.recommender.catalogue import Catalogue
from engine.recommender.policy import RecommenderPolicy, initial_recommender
from engine.recommender.recommend import recommend
from engine.records import Feedback
from training.archive import ArchiveReader
from training.archive.list_sessions import DAY_MS, ListSessions
from training.archive.lists import to_list_feedback
from training.archive.writer import ArchiveWriter
from training.config import RecommenderRetrainingConfig
from training.day_pass import elbo_tds_pass
from training.day_trainer import DayScore, read_state, save_state
from training.evaluation.lists import acted, evaluate_lists, policy_of
from training.list_pipeline import ListRetrainJob

NAME, ITEMS, DAY = "shop", 8, 20_000
SHOP = Recommender.model_validate(
    {
        "user": {"country": {"type": "category"}},
        "item": {"item_id": {"type": "category"}},
        "tasks": {"click": 1.0},
        "slots": 3,
        "candidates": ITEMS,
    }
)
#: A model small enough, and steps large enough, for some hundred lists.
RETRAINING = RecommenderRetrainingConfig.model_validate(
    {
        "elbo_tds": {
            "embedding": 8,
            "latent": 16,
            "hidden": [16],
            "learning_rate": 0.02,
            "embedding_deviation": 1.0,
            "batch_sessions": 16,
        },
        "least_steps": 300,
    },
    context=WRITTEN,
)


def feedback(policy: RecommenderPolicy, number: int) -> Feedback:
    """Return what came of a list; visitors of one country like odd items, those of the other even ones."""
    rng = random.Random(number)
    country = rng.choice(["NL", "DE"])
    time_ms = (DAY + number // 300) * DAY_MS + number
    decision = recommend(policy, recommend_request(NAME, {"country": country}), f"v{number}", time_ms)
    likes = [int(decision.actions[i].id[1:]) % 2 == (country == "NL") for i in decision.slate.items]
    clicks = [float(rng.random() < (0.6 if like else 0.05)) for like in likes]
    return Feedback(
        decision=decision, reward=sum(clicks), outcomes=1, reward_time_ms=time_ms, tasks=["click"], slot_values=clicks
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    directory = tmp_path_factory.mktemp("archive")
    with ArchiveWriter(directory, {NAME: SHOP}) as writer:
        assert writer.append([feedback(first_policy(), number) for number in range(600)], {0: 600}) == []
    return ArchiveReader(directory)


def first_policy() -> RecommenderPolicy:
    first = initial_recommender(NAME, SHOP, 0)
    return RecommenderPolicy(NAME, SHOP, first.space, None, catalogue(), 0, 0, 0, 0)


def catalogue() -> Catalogue:
    ids = tuple(f"i{number}" for number in range(ITEMS))
    return Catalogue(SHOP.item, ids, {"item_id": list(ids)})


def test_a_pass_learns_goes_on_and_what_it_gives_is_better_off_policy(archive: ArchiveReader, tmp_path: Path) -> None:
    cut = (DAY + 1) * DAY_MS + 360
    days: list[DayScore] = []
    first = elbo_tds_pass(ListSessions(archive, NAME, SHOP, 0, cut), RETRAINING, p=0.2, state=None, on_day=days.append)
    assert [(score.day, score.rows) for score in days] == [(DAY, 900), (DAY + 1, 180)]
    assert days[0].auc["click"] == 0.5, "nothing was learned before the first day"
    assert days[1].auc["click"] > 0.75

    policy = RecommenderPolicy(NAME, SHOP, first.space, first.model, catalogue(), 1, 0, 360, 0)
    held = [f for batch in archive.batches(NAME, cut) for f in to_list_feedback(batch, SHOP, NAME)]
    assert len(held) == 240
    compared = [policy_of(policy), policy_of(first_policy())]
    new, old = evaluate_lists(held, SHOP.tasks, SHOP.reward_range, compared, acted(lambda version: None))
    assert new.estimates["slate_independent_sn"].low > old.estimates["slate_independent_sn"].high

    # The state goes to disk and back, and the next pass goes on from it under a stronger augmentation.
    path = tmp_path / "trainer.npz"
    save_state(path, first.state, cut, 360)
    known = read_state(path)
    assert known is not None
    assert known[1:] == (cut, 360)
    rest = ListSessions(archive, NAME, SHOP, cut, (DAY + 2) * DAY_MS)
    again = elbo_tds_pass(rest, RETRAINING, p=0.4, state=known[0], on_day=days.append)
    assert days[2].auc["click"] > 0.75, "it knows what the first pass has learned"
    assert int(np.asarray(again.state["steps"])) > int(np.asarray(first.state["steps"]))
    assert again.space.vocabularies == first.space.vocabularies


@pytest.mark.parametrize(("reason", "p"), [("schedule", 0.2), ("manual", 0.2), ("drift", 0.4)])
def test_a_drift_alarm_strengthens_the_augmentation_of_the_next_pass(reason: str, p: float, tmp_path: Path) -> None:
    job = ListRetrainJob(NAME, SHOP, RETRAINING, tmp_path, reason=reason)  # type: ignore[arg-type]
    assert job.p == p
