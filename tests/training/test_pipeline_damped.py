"""A retraining that searches, calibrates and damps: what comes of it is proved, kept and served as any other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.config import FloorConfig
from engine.oracles import CalibratedOracle, LightGBMOracle, MixtureOracle
from tests.training.floor import CONFIG, Floor, Past
from tests.training.world import NAME, POINT, START_MS
from training.archive import ArchiveReader
from training.config import DampingConfig, LightGBMConfig, SearchConfig
from training.evaluation.target import policy_pmf
from training.job import ExitCode
from training.learner_file import learner_path
from training.reference_file import read_reference, reference_path


def test_a_damped_generation_is_a_mixture_with_the_champion_and_stands_still(drifted: Past, floor: Floor) -> None:
    damping = DampingConfig(when="always", mixture=0.8, floor=0.1, weight_cap=5.0)
    config = CONFIG.model_copy(update={"damping": damping})
    outcome = floor.retrain(drifted, config)
    assert outcome.exit_code == ExitCode.PROMOTED, outcome.words
    assert outcome.policy is not None
    saved = floor.store.load(NAME, outcome.policy.version)
    assert isinstance(saved.oracle, MixtureOracle)
    assert saved.oracle.share == 0.8
    assert len(saved.oracle.members) == 2
    assert isinstance(saved.point.policy.exploration, FloorConfig)
    # It is kept as it was proved, and nothing learns on from it.
    assert not learner_path(floor.store, NAME, saved.version).exists()
    rows = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS)
    p = policy_pmf(saved, rows)
    available = np.repeat(np.add.reduceat(rows.available.astype(float), rows.starts[:-1]), np.diff(rows.starts))
    assert (p[rows.available] >= (0.1 / available)[rows.available] - 1e-12).all()
    tags = floor.client.get_run(outcome.run_id).data.tags
    assert (tags["damped"], tags["oscillating"], tags["step"]) == ("True", "False", "promote")
    assert tags["offsets"].startswith("{")
    frozen = read_reference(reference_path(floor.directory, NAME), rows.context.shape[1], rows.action.shape[1])
    assert frozen is not None


def test_a_searched_and_calibrated_oracle_is_the_same_every_time(drifted: Past, floor: Floor) -> None:
    search = SearchConfig(trials=2, trees=(3, 5), leaves=(4,), learning_rate=(0.3,), min_child=(10,))
    update = {"oracles": ("lightgbm",), "search": search, "calibration_share": 0.2, "lightgbm": LightGBMConfig(trees=2)}
    config = CONFIG.model_copy(update=update)
    again, first = floor.retrain(drifted, config, dry_run=True), floor.retrain(drifted, config)
    assert first.policy is not None
    assert again.policy is not None
    assert first.policy.digest() == again.policy.digest()
    assert isinstance(first.policy.oracle, CalibratedOracle)
    assert isinstance(first.policy.oracle.base, LightGBMOracle)
    experiment = floor.client.get_experiment_by_name("leeway").experiment_id
    children = floor.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{first.run_id}'")
    assert len(children) == 3  # the configured settings, and two others
    assert all(run.data.metrics["search/loss"] > 0.0 for run in children)


def test_feedback_that_cannot_be_right_is_not_trained_on(drifted: Past, floor: Floor) -> None:
    reward = POINT.reward.model_copy(update={"range": (0.0, 0.5), "default": 0.0})
    outcome = floor.retrain(drifted, point=POINT.model_copy(update={"reward": reward}))
    assert outcome.exit_code == ExitCode.REFUSED
    assert "rewards lie outside reward.range [0.0, 0.5]" in outcome.words
    assert (floor.versions(), floor.ledger.entries) == (0, [])
    assert floor.retrain(replace(drifted)).exit_code == ExitCode.PROMOTED
