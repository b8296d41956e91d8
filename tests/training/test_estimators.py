"""The estimators with a setting: their limits, the reference values, and groups of actions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.training.arrays import Bandit, like_logging
from tests.training.test_evaluation import LOGS, REFERENCE, reference_rows
from tests.training.world import World, dataset_of
from training.evaluation import (
    ESTIMATORS,
    IPS,
    MIPS,
    SNIPS,
    ClippedDoublyRobust,
    ClippedIPS,
    DirectMethod,
    DoublyRobust,
    DRos,
    Estimator,
    LoggedRows,
    SelfNormalizedDR,
    SubGaussianDR,
    SubGaussianIPS,
    SwitchDR,
    estimate,
)
from training.evaluation.clusters import clusters_of

INFINITY = float("inf")
REFERENCES: dict[str, Estimator] = {
    "clipped-IPS(10)": ClippedIPS(10.0),
    "clipped-IPS(100)": ClippedIPS(100.0),
    "clipped-DR(10)": ClippedDoublyRobust(10.0),
    "SNDR": SelfNormalizedDR(),
    "Switch-DR(1)": SwitchDR(1.0),
    "Switch-DR(10)": SwitchDR(10.0),
    "Switch-DR(100)": SwitchDR(100.0),
    "DRos(1)": DRos(1.0),
    "DRos(100)": DRos(100.0),
    "DRos(10000)": DRos(10_000.0),
    "SGIPS(0.05)": SubGaussianIPS(0.05),
    "SGDR(0.05)": SubGaussianDR(0.05),
}
LIMITS = {
    "clipped_ips": (ClippedIPS(INFINITY), IPS()),
    "clipped_dr": (ClippedDoublyRobust(INFINITY), DoublyRobust()),
    "switch_dr, infinity": (SwitchDR(INFINITY), DoublyRobust()),
    "switch_dr, 0": (SwitchDR(0.0), DirectMethod()),
    "dros, infinity": (DRos(INFINITY), DoublyRobust()),
    "dros, 0": (DRos(0.0), DirectMethod()),
    "sg_ips": (SubGaussianIPS(0.0), IPS()),
    "sg_dr": (SubGaussianDR(0.0), DoublyRobust()),
}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the reference data {REFERENCE} is not here")
@pytest.mark.parametrize("name", LOGS)
def test_estimates_equal_those_of_open_bandit_pipeline(name: str) -> None:
    expected = json.loads((REFERENCE / "expected.json").read_text())[name]
    rows = reference_rows(name)
    for theirs, estimator in REFERENCES.items():
        found = estimate(estimator, rows)
        assert found.value == pytest.approx(expected[theirs]["value"], abs=1e-9), theirs
        if theirs != "SNDR":  # of which we take the delta method's standard error, see its docstring
            assert found.standard_error == pytest.approx(expected[theirs]["se"], abs=1e-9), theirs


@pytest.mark.parametrize(("estimator", "limit"), LIMITS.values(), ids=LIMITS)
@given(seed=st.integers(0, 1_000), n=st.integers(1, 40))
def test_at_the_end_of_its_setting_it_is_another_estimator(
    estimator: Estimator, limit: Estimator, seed: int, n: int
) -> None:
    rows = Bandit(spread=1.5).sample(n, seed)
    assert_allclose(estimator.contributions(rows), limit.contributions(rows), rtol=1e-12, atol=1e-12)


def test_a_great_setting_is_near_that_end() -> None:
    rows = Bandit(spread=1.0).sample(2_000, seed=1)
    for near, limit in ((DRos(1e12), DoublyRobust()), (SubGaussianIPS(1e-9), IPS()), (ClippedIPS(1e9), IPS())):
        assert estimate(near, rows).value == pytest.approx(estimate(limit, rows).value, abs=1e-5)


@given(seed=st.integers(0, 1_000), clip=st.floats(0.1, 50.0))
def test_clipping_underestimates_rewards_that_are_not_negative(seed: int, clip: float) -> None:
    rows = Bandit(spread=1.0).sample(50, seed)
    assert (ClippedIPS(clip).contributions(rows) <= IPS().contributions(rows)).all()
    assert (SubGaussianIPS(0.1).weight(rows.weights) <= 10.0).all()
    assert (DRos(clip).weight(rows.weights) <= np.sqrt(clip) / 2.0 + 1e-12).all()


@given(seed=st.integers(0, 1_000), n=st.integers(2, 60))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_weight_is_1_on_policy_and_no_setting_moves_it(name: str, seed: int, n: int) -> None:
    rows = like_logging(Bandit().sample(n, seed))
    found = estimate(ESTIMATORS[name], rows).value
    if not ESTIMATORS[name].needs_reward_model:
        assert found == pytest.approx(rows.reward.mean(), abs=1e-12)
    elif name not in ("dm", "dros"):  # the one has no weights, the other shrinks also those of 1
        assert found == pytest.approx(estimate(DoublyRobust(), rows).value, abs=1e-12)


@given(seed=st.integers(0, 1_000))
def test_a_perfect_model_of_noiseless_rewards_leaves_no_estimator_with_a_model_an_error(seed: int) -> None:
    rows = Bandit(model_error=0.0).sample(30, seed)
    exact = replace(rows, reward=rows.model[rows.chosen])
    for estimator in ESTIMATORS.values():
        if estimator.needs_reward_model:
            assert estimate(estimator, exact).value == pytest.approx(rows.direct.mean())


@given(seed=st.integers(0, 1_000), actions=st.integers(2, 6), groups=st.integers(1, 3))
def test_mips_is_unbiased_by_enumeration_where_the_group_decides_the_reward(
    seed: int, actions: int, groups: int
) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.integers(groups, size=actions)
    p, pi = rng.dirichlet(np.ones(actions)) * 0.9 + 0.1 / actions, rng.dirichlet(np.ones(actions))
    rewards = rng.normal(size=groups)[cluster]
    rows = LoggedRows(
        starts=np.arange(actions + 1) * actions,
        chosen=np.arange(actions) * (actions + 1),
        reward=rewards,
        logged=np.tile(p, actions),
        target=np.tile(pi, actions),
        cluster=np.tile(cluster, actions),
    )
    assert p @ MIPS().contributions(rows) == pytest.approx(pi @ rewards, abs=1e-9)
    own = replace(rows, cluster=np.tile(np.arange(actions), actions))
    assert_allclose(MIPS().contributions(own), IPS().contributions(own))


def test_mips_needs_support_of_the_group_alone_and_varies_less() -> None:
    rng = np.random.default_rng(1)
    n, actions = 2_000, 50
    cluster = np.arange(actions) % 5
    p, pi = rng.dirichlet(np.ones(actions)) * 0.9 + 0.1 / actions, rng.dirichlet(np.full(actions, 0.3))
    p[0] = 0.0  # never drawn; its neighbours are
    p /= p.sum()
    chosen = rng.choice(actions, size=n, p=p)
    rows = LoggedRows(
        starts=np.arange(n + 1) * actions,
        chosen=np.arange(n) * actions + chosen,
        reward=(rng.random(n) < 0.2 * (1 + cluster[chosen])).astype(np.float64),
        logged=np.tile(p, n),
        target=np.tile(pi, n),
        cluster=np.tile(cluster, n),
    )
    mips, ips = estimate(MIPS(), rows), estimate(IPS(), rows)
    assert abs(mips.value - 0.2 * float(pi @ (1 + cluster))) < 4 * mips.standard_error
    assert mips.standard_error < 0.6 * ips.standard_error


def test_actions_are_grouped_by_their_features_and_each_is_in_one_group() -> None:
    rows = dataset_of(World(seed=3).stream(None, 50))
    price = np.where(np.isin(rows.action_ids.astype(str), ["north", "east"]), 1.0, 9.0)
    grouped = replace(rows, action=price[:, None].astype(np.float32))
    found = clusters_of(grouped, 2)
    assert len(set(found[price == 1.0])) == len(set(found[price == 9.0])) == 1
    assert found[price == 1.0][0] != found[price == 9.0][0]
    with pytest.raises(ValueError, match="choose from 1 to 4"):
        clusters_of(grouped, 5)
    with pytest.raises(ValueError, match=r"actions\.features"):
        clusters_of(replace(rows, action=np.zeros((len(rows.action_ids), 0), np.float32)), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedIPS(0.0), "clip must be positive"),
        (lambda: ClippedDoublyRobust(-1.0), "clip must be positive"),
        (lambda: SwitchDR(-1.0), "threshold must not"),
        (lambda: DRos(float("nan")), "shrinkage must not"),
        (lambda: SubGaussianIPS(1.5), "between 0 and 1"),
        (lambda: SubGaussianDR(-0.1), "between 0 and 1"),
    ],
)
def test_a_setting_that_is_none_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


def test_snips_stays_within_the_rewards_and_ips_need_not() -> None:
    rows = Bandit(spread=1.5).sample(20, seed=5)
    shifted = replace(rows, reward=rows.reward * 0.0 + 1.0)
    assert estimate(SNIPS(), shifted).value == pytest.approx(1.0)
    assert abs(estimate(IPS(), shifted).value - 1.0) > 0.05
