"""Off-policy evaluation against published numbers, exact enumeration and synthetic truths."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from engine.features import Encoder
from tests.training.arrays import Bandit, like_logging
from tests.training.world import POINT, World, dataset_of, trained
from training.evaluation import ESTIMATORS, LoggedRows, Student, Support, difference, estimate
from training.evaluation.diagnostics import unsupported_mass, weight_test
from training.evaluation.policy import Feedback, evaluate_logging, evaluate_policy
from training.evaluation.reward_model import cross_fit
from training.evaluation.target import policy_pmf, policy_prediction

REFERENCE = Path(__file__).parents[3] / "shared" / "data" / "ope"
LOGS = ("obd_men_log_random_eval_bts", "obd_men_log_bts_eval_uniform", "synthetic_binary")
SEEDS = 200


def reference_rows(name: str) -> LoggedRows:
    with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as data:
        pi = data["pi_e"].T[data["position"]] if "position" in data else data["pi_e"]
        n, actions = pi.shape
        # Only the propensity of the chosen action was published; the others enter no estimate.
        logged = np.repeat((1.0 - data["pscore"]) / (actions - 1), actions)
        chosen = np.arange(n) * actions + data["action"]
        logged[chosen] = data["pscore"]
        return LoggedRows(
            starts=np.arange(n + 1) * actions,
            chosen=chosen,
            reward=data["reward"].astype(np.float64),
            logged=logged,
            target=pi.ravel(),
            q_hat=data["q_hat"].astype(np.float64).ravel(),
        )


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the reference data {REFERENCE} is not here")
@pytest.mark.parametrize("name", LOGS)
def test_estimates_equal_those_of_open_bandit_pipeline(name: str) -> None:
    expected = json.loads((REFERENCE / "expected.json").read_text())[name]
    rows = reference_rows(name)
    for ours, theirs in {"ips": "IPS", "snips": "SNIPS", "dm": "DM", "dr": "DR"}.items():
        found = estimate(ESTIMATORS[ours], rows)
        assert found.value == pytest.approx(expected[theirs]["value"], abs=1e-9), ours
        if ours != "snips":  # of which we take the delta method's standard error, see its docstring
            assert found.standard_error == pytest.approx(expected[theirs]["se"], abs=1e-9), ours
    diagnostics = expected["_diagnostics"]
    assert found.effective_sample_size == pytest.approx(diagnostics["ess"])
    assert found.max_weight == pytest.approx(diagnostics["max_iw"])
    assert found.mean_weight == pytest.approx(diagnostics["mean_iw"])


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_intervals_of_95_percent_cover_the_truth_in_95_percent_of_samples(name: str) -> None:
    bandit = Bandit()
    covered = 0
    for seed in range(SEEDS):
        found = estimate(ESTIMATORS[name], bandit.sample(1_000, seed))
        covered += found.low <= bandit.truth <= found.high
    # 99.9 % of binomial counts with p = 0.95 lie within 180..198 of 200; a heavy tail may cost a little more.
    assert 178 <= covered <= 199


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_standard_errors_are_the_spread_over_samples(name: str) -> None:
    bandit = Bandit()
    found = [estimate(ESTIMATORS[name], bandit.sample(1_000, seed)) for seed in range(SEEDS)]
    # The spread of 200 values is known to 5 %; three times that, for 99.7 %.
    assert np.mean([e.standard_error for e in found]) == pytest.approx(np.std([e.value for e in found]), rel=0.15)


def test_the_interval_of_a_paired_difference_covers_and_is_narrower_than_that_of_two_estimates() -> None:
    bandit = Bandit()
    covered = 0
    for seed in range(SEEDS):
        rows = bandit.sample(1_000, seed)
        found = difference(ESTIMATORS["dr"], rows, like_logging(rows), confidence=0.95)
        covered += found.low <= bandit.truth - bandit.logging_truth
    assert 178 <= covered <= 199
    apart = [estimate(ESTIMATORS["dr"], rows).standard_error for rows in (rows, like_logging(rows))]
    assert found.standard_error < np.hypot(apart[0], apart[1])


@given(seed=st.integers(0, 1_000), actions=st.integers(1, 5))
@pytest.mark.parametrize("name", ["ips", "dr"])
def test_unbiased_by_enumeration_whatever_the_model(name: str, seed: int, actions: int) -> None:
    rng = np.random.default_rng(seed)
    p, pi = rng.dirichlet(np.ones(actions)) * 0.9 + 0.1 / actions, rng.dirichlet(np.ones(actions))
    rewards, q_hat = rng.normal(size=actions), rng.normal(size=actions)
    # One row for each action that could have been drawn, with the reward that it would have had.
    rows = LoggedRows(
        starts=np.arange(actions + 1) * actions,
        chosen=np.arange(actions) * (actions + 1),
        reward=rewards,
        logged=np.tile(p, actions),
        target=np.tile(pi, actions),
        q_hat=np.tile(q_hat, actions),
    )
    assert p @ ESTIMATORS[name].contributions(rows) == pytest.approx(pi @ rewards, abs=1e-9)


@given(seed=st.integers(0, 1_000), n=st.integers(1, 50))
@pytest.mark.parametrize("name", ["ips", "snips"])
def test_the_logging_policy_is_worth_its_mean_reward(name: str, seed: int, n: int) -> None:
    rows = like_logging(Bandit().sample(n, seed))
    assert estimate(ESTIMATORS[name], rows).value == pytest.approx(rows.reward.mean(), abs=1e-12)


def test_a_wrong_model_spoils_the_direct_method_and_not_the_doubly_robust_one() -> None:
    bandit = Bandit(model_error=0.2)
    rows = bandit.sample(20_000, seed=3)
    assert estimate(ESTIMATORS["dm"], rows).low > bandit.truth + 0.15
    assert estimate(ESTIMATORS["dr"], rows).value == pytest.approx(bandit.truth, abs=0.02)


def test_a_single_row_has_an_estimate_and_no_bounds() -> None:
    found = estimate(ESTIMATORS["ips"], Bandit().sample(1, seed=0))
    assert np.isfinite(found.value)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_rows_without_any_weight_give_zero_and_say_so() -> None:
    rows = LoggedRows(np.array([0, 2]), np.array([0]), np.array([1.0]), np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    for name in ("ips", "snips"):
        found = estimate(ESTIMATORS[name], rows)
        assert (found.value, found.effective_sample_size) == (0.0, 0.0)


@given(weights=st.lists(st.floats(0.001, 1_000.0), min_size=1, max_size=30))
def test_effective_sample_size_lies_between_one_and_n(weights: list[float]) -> None:
    def size(w: np.ndarray) -> float:
        n = len(w)
        # One action a row, with any weight: only the ratio of the two probabilities counts.
        one = np.ones(n)
        return LoggedRows(np.arange(n + 1), np.arange(n), one, one, w).weight_facts[0]

    w = np.array(weights)
    assert 1.0 - 1e-9 <= size(w) <= len(w) + 1e-9
    assert size(w * 7.0) == pytest.approx(size(w))


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95.0])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        Student().interval(np.array([1.0, 2.0]), confidence, Support())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": np.array([0, 2, 3])}, "starts must rise"),
        ({"starts": np.array([0, 0, 4])}, "starts must rise"),
        ({"target": np.array([1.0])}, "target has shape"),
        ({"target": np.array([1.0, 0.0, np.nan, 0.0])}, r"target\[2\]"),
        ({"reward": np.array([1.0, np.inf])}, r"reward\[1\]"),
        ({"chosen": np.array([0, 0])}, "chosen must be"),
        ({"logged": np.array([0.5, 0.5, 1.0, 0.0])}, "row 1 is 0.0"),
    ],
)
def test_rows_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    rows = LoggedRows(np.array([0, 2, 4]), np.array([0, 3]), np.ones(2), np.full(4, 0.5), np.full(4, 0.5))
    with pytest.raises(ValueError, match=message):
        replace(rows, **change)


def test_no_rows_are_refused() -> None:
    empty = np.zeros(0)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        LoggedRows(np.zeros(1, np.int64), np.zeros(0, np.int64), empty, empty, empty)


def test_unsupported_mass_is_what_the_target_gives_to_actions_that_could_not_be_drawn() -> None:
    rows = LoggedRows(
        starts=np.array([0, 2, 4]),
        chosen=np.array([0, 2]),
        reward=np.ones(2),
        logged=np.array([1.0, 0.0, 0.5, 0.5]),
        target=np.array([0.7, 0.3, 0.5, 0.5]),
    )
    assert unsupported_mass(rows) == pytest.approx(0.15)
    assert weight_test(rows).expected == pytest.approx(0.85)


def test_the_weights_of_true_propensities_pass_and_those_of_wrong_ones_do_not() -> None:
    bandit = Bandit(spread=0.8)  # weights up to several hundred
    deviations = [weight_test(bandit.sample(500, seed)).z for seed in range(SEEDS)]
    assert np.mean(deviations) == pytest.approx(0.0, abs=0.25)  # 3.5 standard errors
    assert np.std(deviations) == pytest.approx(1.0, abs=0.2)
    assert max(map(abs, deviations)) < 4.0

    rows = bandit.sample(2_000, 1)
    # The drawn action's probability is logged too great by half, as if the vector before a mask had been logged.
    wrong = rows.logged.copy()
    wrong[rows.chosen] = np.minimum(wrong[rows.chosen] * 1.5, 1.0)
    assert abs(weight_test(replace(rows, logged=wrong)).z) > 8.0


def test_the_vectors_equal_those_of_the_request_path_bit_for_bit() -> None:
    world = World(seed=4)
    champion = trained(world, 300)
    feedback = world.stream(champion, 5_000, excluded=True)  # more than one chunk
    found = policy_pmf(champion, dataset_of(feedback))
    served = [list(champion_vector) for champion_vector in (f.decision.probabilities for f in feedback)]
    assert_array_equal(found, np.concatenate(served))
    scores = policy_prediction(champion, dataset_of(feedback[:50])).mean
    encoder = Encoder(POINT, champion.vocabulary)
    asked = [champion.predict(encoder.encode(f.decision.context, f.decision.actions)).mean for f in feedback[:50]]
    assert_array_equal(scores, np.concatenate(asked))


def test_no_row_stands_in_its_own_prediction() -> None:
    rows = dataset_of(World(seed=4).stream(None, 400))
    before = cross_fit(rows, POINT)
    for row in (0, 17, 399):
        other = rows.reward.copy()
        other[row] = 1.0 - other[row]
        after = cross_fit(replace(rows, reward=other), POINT)
        mine = slice(rows.starts[row], rows.starts[row + 1])
        assert_array_equal(after[mine], before[mine])
        assert not np.array_equal(after, before)


def test_the_reward_model_predicts_and_makes_the_estimate_more_precise() -> None:
    world = World(seed=4)
    rows = dataset_of(world.stream(None, 2_000))
    q_hat = cross_fit(rows, POINT)
    residual = rows.reward - q_hat[rows.chosen_flat]
    assert residual.var() < 0.7 * rows.reward.var()
    found = evaluate_policy(trained(world, 2_000), Feedback(rows, q_hat)).estimates
    assert found["dr"].standard_error < 0.8 * found["ips"].standard_error


def test_the_champion_on_its_own_feedback_is_worth_what_it_earned() -> None:
    world = World(seed=4)
    champion = trained(world, 500)
    rows = dataset_of(world.stream(champion, 500))
    feedback = Feedback(rows, cross_fit(rows, POINT))
    by_policy, by_log = evaluate_policy(champion, feedback), evaluate_logging(feedback)
    assert by_policy.estimates == by_log.estimates
    assert by_policy.estimates["ips"].value == pytest.approx(rows.reward.mean())
    assert by_policy.weights.z == pytest.approx(0.0, abs=1e-3)
    assert by_policy.predicted is not None
    assert_allclose(by_policy.predicted.mean(), rows.reward.mean(), atol=0.1)
    assert by_log.predicted is None
