"""The learner role where a plan is learned: from the log to a policy that serves, through restarts, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.config import DecisionPoint
from engine.errors import ConfigError
from engine.oracles import LinearLearner, TabularOracle
from engine.policy import Policy
from engine.records import Feedback, Generation
from engine.replay import mismatch
from engine.sequential import UCRL2Learner
from engine.store import PolicyStore
from streaming.config import load_config
from streaming.embedded import EmbeddedLog
from streaming.learner import LearnerRole
from streaming.log import Message
from streaming.pair_detector import PairDetector
from streaming.retraining import retrain_point
from streaming.topics import FEEDBACK, GENERATIONS
from tests.engine.sequential.exact_detector import ExactDetector
from tests.engine.sequential.samples import BEST, NAME, Shop, shop, shop_point, shop_settings
from tests.streaming.samples import PARTITIONS, Clock, append, opened

POINT = shop_point(width_scale=0.1, patience="1s")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def role(log: EmbeddedLog, store: PolicyStore, clock: Clock, point: DecisionPoint = POINT) -> LearnerRole:
    return LearnerRole(log, {NAME: point}, store, store.root.parent / "learner", clock)


def serving(store: PolicyStore) -> Policy:
    version = store.current(NAME)
    assert version is not None
    return store.load(NAME, version)


def served(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, learner: LearnerRole, place: Shop, rounds: int
) -> list[Feedback]:
    """Let a shop be served by what is published, which follows each hundred decisions."""
    made: list[Feedback] = []
    for _ in range(rounds):
        fresh = list(place.ask(serving(store), 100))
        append(log, *fresh)
        clock.now_ms += 3_000
        learner.step()
        made += fresh
    return made


def test_a_plan_is_learned_from_the_log_and_every_decision_is_replayed(
    log: EmbeddedLog, store: PolicyStore, clock: Clock
) -> None:
    learner = role(log, store, clock)
    assert serving(store).learned == 0
    made = served(log, store, clock, learner, shop(), rounds=30)
    policy = serving(store)
    assert isinstance(policy.oracle, TabularOracle)
    assert 2_400 < policy.learned < 3_000
    late = [each.decision for each in made[1_500:]]
    best = [d.actions[d.chosen].id == BEST[d.context.named["stage"].text] for d in late]
    assert np.mean(best) > 0.7
    versions = {each.decision.policy_version for each in made}
    assert len(versions) > 20
    for each in made[::11]:
        assert mismatch(each.decision, store.load(NAME, each.decision.policy_version)) == ""


def test_a_restart_goes_on_from_the_checkpoint_bit_for_bit(log: EmbeddedLog, store: PolicyStore, clock: Clock) -> None:
    place = shop()
    first = role(log, store, clock)
    made = served(log, store, clock, first, place, rounds=8)
    append(log, *place.ask(serving(store), 100))
    first.step()  # learned, not yet checkpointed: the crash takes it
    first._consumer.close()
    second = role(log, store, clock)
    made = served(log, store, clock, second, place, rounds=8)
    assert len(made) == 800
    inside = second.points[NAME].learner
    assert isinstance(inside, UCRL2Learner)
    again = UCRL2Learner(POINT, PairDetector)
    again.learn(
        [
            (partition, Feedback.FromString(record.value or b""))
            for partition in range(PARTITIONS)
            for record in log.read(FEEDBACK, partition, 0, 10_000)
        ]
    )
    assert inside.oracle().q.tobytes() == again.oracle().q.tobytes()
    assert inside.learned == again.learned


def test_another_plan_starts_afresh(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = role(log, store, clock)
    served(log, store, clock, first, shop(), rounds=5)
    first.close()
    with caplog.at_level(logging.WARNING):
        second = role(log, store, clock, shop_point(width_scale=0.2))
    assert "policy.oracle has changed" in caplog.text
    assert second.points[NAME].policy.learned == 0


def test_a_generation_of_regressions_does_not_replace_a_plan(
    log: EmbeddedLog, store: PolicyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    learner = role(log, store, clock)
    trained = Policy(NAME, POINT, (), LinearLearner(18).oracle(), 1, 0, 5, 0)
    store.save(trained)
    entry = Generation(decision_point=NAME, generation=1, policy_version=trained.version, promoted=True)
    log.append([Message(GENERATIONS, NAME.encode(), entry.SerializeToString(), 0)])
    with caplog.at_level(logging.WARNING):
        learner.step()
    assert "generation 1 is passed over" in caplog.text
    assert serving(store).version != trained.version


def test_a_plan_is_not_retrained(tmp_path: Path) -> None:
    settings = {"version": 1, "decision_points": {NAME: {**shop_settings(), "retraining": {"enabled": False}}}}
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    with pytest.raises(ConfigError, match=r"decision_points.shop.policy.oracle is of kind ucrl2"):
        retrain_point(config, NAME, reason="manual", since_ms=None, dry_run=True, progress=print)


@pytest.mark.parametrize(("categories", "seed"), [(2, 0), (2, 1), (4, 2), (4, 3)])
def test_the_detector_of_a_pair_decides_nearly_as_the_exact_test(categories: int, seed: int) -> None:
    """It looks at fewer starts, so an alarm can come later and never earlier."""
    rng = np.random.default_rng(seed)
    before, after = rng.dirichlet(np.ones(categories), 2)
    symbols = [*rng.choice(categories, 400, p=before).tolist(), *rng.choice(categories, 400, p=after).tolist()]
    exact, thinned = (
        next((n for n, symbol in enumerate(symbols) if detector.update(symbol)), 800)
        for detector in (ExactDetector(categories, 0.01), PairDetector(categories, 0.01))
    )
    assert 400 <= exact <= thinned <= exact + 0.1 * (exact - 400) + 2


def test_the_detector_of_a_pair_goes_on_from_where_it_was_saved_and_forgets_at_a_reset() -> None:
    rng = np.random.default_rng(5)
    symbols = rng.integers(0, 3, 300).tolist()
    through, again, fresh = (PairDetector(3, 0.01) for _ in range(3))
    for symbol in symbols:
        through.update(symbol)
    again.restore(through.save())
    assert again.save() == through.save()
    for symbol in [0] * 40:
        assert through.update(symbol) == again.update(symbol)
    assert again.save() == through.save()
    through.reset()
    assert through.save() == fresh.save()
