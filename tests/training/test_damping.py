from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.config import FloorConfig, PolicyConfig, SquareCBConfig
from engine.oracles import CalibratedOracle, LinearOracle, MixtureOracle
from engine.policy import Policy
from tests.training.world import NAME, POINT, START_MS, World, archive_of, trained
from training.archive import ArchiveReader
from training.candidates import calibrated
from training.checks import faults
from training.config import DampingConfig, LightGBMConfig, RetrainingConfig, SearchConfig
from training.damping import damped_point, gamma_of, mixed, row_weights
from training.dataset import Dataset
from training.evaluation.target import policy_pmf, policy_prediction
from training.search import search_lightgbm


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    world = World(seed=3)
    directory = archive_of(world.stream(trained(World(seed=4), 500), 800), tmp_path_factory.mktemp("rows"))
    return ArchiveReader(directory).read(NAME, POINT, START_MS)


def test_older_generations_weigh_less(rows: Dataset) -> None:
    versions = np.array(["g1.0-00000000"] * 400 + ["g2.3-00000000"] * 300 + ["elsewhere"] * 100, dtype=object)
    weights = row_weights(replace(rows, policy_version=versions), DampingConfig(blend_decay=0.5), (0.0, 1.0))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] / weights[500] == pytest.approx(0.5)
    assert weights[-1] / weights[500] == pytest.approx(0.25)  # of another system: before all others


def test_propensities_and_classes_weigh_as_configured(rows: Dataset) -> None:
    capped = row_weights(rows, DampingConfig(weight_cap=1.5), (0.0, 1.0))
    available = np.add.reduceat(rows.available.astype(float), rows.starts[:-1])
    expected = np.minimum(1.0 / (available * rows.propensity), 1.5)
    assert_allclose(capped, expected / expected.mean())
    assert (expected == 1.5).any()
    balanced = row_weights(rows, DampingConfig(balance_classes=True), (0.0, 1.0))
    positive = rows.reward > 0.5
    assert balanced[positive].sum() == pytest.approx(balanced[~positive].sum())


def test_gamma_is_bounded_by_the_calibration_and_a_floor_is_put_around() -> None:
    exploration = SquareCBConfig(gamma_scale=100.0, gamma_exponent=0.5)
    point = POINT.model_copy(update={"policy": PolicyConfig(exploration=exploration)})
    config = DampingConfig(calibrated_gamma=True, floor=0.1)
    damped = damped_point(point, config, learned=10_000, actions=4.0, calibration_error=0.02)
    outer = damped.policy.exploration
    assert isinstance(outer, FloorConfig)
    assert outer.epsilon == 0.1
    assert isinstance(outer.inner, SquareCBConfig)
    assert outer.inner.gamma_scale == pytest.approx(2.0 * 2.0 / 0.02)
    assert outer.inner.gamma_exponent == 0.0
    served = replace(trained(World(seed=5), 50), point=damped)
    assert gamma_of(served) == pytest.approx(200.0)
    # Well calibrated, or not known how well: gamma is what was configured.
    for error in (1e-6, float("nan")):
        same = damped_point(
            point, DampingConfig(calibrated_gamma=True), learned=10_000, actions=4.0, calibration_error=error
        )
        assert same == point


def linear(policy: Policy, theta: list[float], vocabulary: tuple[str, ...], generation: int) -> Policy:
    table = np.zeros((1 + len(vocabulary), 1 + policy.encoder.width))
    table[1:, 0] = theta  # the intercept alone
    oracle = LinearOracle(table)
    return replace(policy, oracle=oracle, vocabulary=vocabulary, generation=generation, learned=100)


def test_a_mixture_moves_by_a_share_and_keeps_what_it_does_not_know(rows: Dataset) -> None:
    base = trained(World(seed=5), 50)
    old = linear(base, [0.2, 0.4], ("north", "east"), 1)
    new = linear(base, [0.4, 0.9], ("east", "south"), 2)
    both = mixed(new, old, DampingConfig(mixture=0.5))
    assert isinstance(both.oracle, MixtureOracle)
    codes = {action: code for code, action in enumerate(both.vocabulary, start=1)}
    X = np.zeros((3, base.encoder.width), np.float32)
    scores = both.oracle.predict(X, np.array([codes[a] for a in ("north", "east", "south")]))
    intercepts = [policy.oracle.predict(X[:1], np.array([1]))[0] for policy in (old, new)]
    assert scores[0] == pytest.approx(intercepts[0])  # the new one never saw it
    assert scores[1] == pytest.approx(0.4)  # both agree
    assert scores[2] == pytest.approx(0.9)  # the old one never saw it
    third = mixed(linear(base, [0.0], ("east",), 3), both, DampingConfig(mixture=0.5, max_change=0.1))
    assert isinstance(third.oracle, MixtureOracle)
    assert len(third.oracle.members) == 3
    code = third.vocabulary.index("east") + 1
    assert third.oracle.predict(X[:1], np.array([code]))[0] == pytest.approx(0.3)  # 0.4 less the cap, not less 0.2
    # The newest two are kept: the last, and the one before, as if that had been the first.
    short = mixed(linear(base, [0.0], ("east",), 3), both, DampingConfig(mixture=0.5, mixture_members=2))
    assert isinstance(short.oracle, MixtureOracle)
    assert short.oracle.predict(X[:1], np.array([short.vocabulary.index("east") + 1]))[0] == pytest.approx(0.2)


def test_a_dead_band_lets_small_changes_pass_by() -> None:
    base = trained(World(seed=5), 50)
    old, new = linear(base, [0.50], ("north",), 1), linear(base, [0.53], ("north",), 2)
    X = np.zeros((1, base.encoder.width), np.float32)
    for band, expected in ((0.02, 0.515), (0.05, 0.50)):
        both = mixed(new, old, DampingConfig(mixture=0.5, dead_band=band))
        assert both.oracle.predict(X, np.array([1]))[0] == pytest.approx(expected)
    assert mixed(new, None, DampingConfig()) is new
    assert mixed(new, old, DampingConfig(mixture=1.0)) is new


def test_calibration_puts_scores_on_the_scale_of_rewards(rows: Dataset) -> None:
    policy = trained(World(seed=6), 1_000)
    askew = replace(policy, oracle=CalibratedOracle(policy.oracle, 0.7, 0.2))
    found = calibrated(askew, rows)
    before, after = (policy_prediction(each, rows).mean[rows.chosen_flat] for each in (askew, found))
    assert abs(before.mean() - rows.reward.mean()) > 0.1
    assert after.mean() == pytest.approx(rows.reward.mean())
    assert np.polyfit(after, rows.reward, 1)[0] == pytest.approx(1.0)
    assert policy_pmf(found, rows).shape == rows.probabilities.shape


def test_balanced_classes_ask_for_calibration() -> None:
    with pytest.raises(ValueError, match="set calibration_share"):
        RetrainingConfig(damping=DampingConfig(balance_classes=True))
    assert RetrainingConfig(damping=DampingConfig(balance_classes=True), calibration_share=0.2).calibration_share == 0.2


def test_faults_of_the_log_are_found(rows: Dataset) -> None:
    assert faults(rows, POINT) == []
    reward = rows.reward.copy()
    reward[:2] = 7.0
    probabilities = rows.probabilities.copy()
    probabilities[int(rows.starts[5])] += 0.5
    ids = rows.decision_id.copy()
    ids[1] = ids[0]
    found = faults(replace(rows, reward=reward, probabilities=probabilities, decision_id=ids), POINT)
    assert found == [
        "2 rewards lie outside reward.range [0.0, 1.0]",
        "1 logged vectors do not sum to 1",
        "1 decisions are there twice",
    ]


def test_a_search_takes_the_best_of_what_it_tried_within_its_budget(rows: Dataset) -> None:
    tried: list[tuple[LightGBMConfig, float]] = []
    times = iter(range(0, 100_000, 1_000))
    first = LightGBMConfig(trees=1, learning_rate=0.001)
    config = SearchConfig(trials=50, budget=3_500, trees=(3,), leaves=(4, 8), learning_rate=(0.1,), min_child=(10,))
    best = search_lightgbm(rows, POINT, first, config, 0, lambda: next(times), lambda c, loss: tried.append((c, loss)))
    assert len(tried) == 1 + 3  # the configured one, and as many as the budget lets
    assert tried[0][0] == first
    assert best == min(tried, key=lambda each: each[1])[0]
    assert best.trees == 3
