"""The live loop: the draws are the service's, nobody sees a reward but that of the action drawn, runs are equal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.config import DecisionPoint, PolicyConfig
from engine.records import Action, Features, Numbers, Value
from engine.sampling import draw
from engine.serving.deciding import decide as serve
from training.config import LightGBMConfig
from training.dataset import Dataset
from training.simulation.generation import alternation, generation_facts
from training.simulation.generator import PROBLEMS
from training.simulation.play import Delay, decide, play
from training.simulation.run import Run, Settings, run_world
from training.simulation.student import BatchStudent, OnlineStudent, fit_configured, fit_trees
from training.simulation.world import Offer

WORLD = PROBLEMS["linear"]


def with_exploration(**exploration: object) -> DecisionPoint:
    policy = PolicyConfig.model_validate({"exploration": exploration})
    return WORLD.point.model_copy(update={"policy": policy})


def simulated(seed: int = 0, **settings: object) -> Run:
    return run_world(WORLD, WORLD.point, Settings(**{"decisions": 600, **settings}), seed)  # type: ignore[arg-type]


def test_the_decisions_are_those_that_the_service_would_make() -> None:
    visits = WORLD.visits(3, 300, Offer(available=0.6, masked=0.3))
    student = OnlineStudent(WORLD.point)
    for played in play(visits, student, block=50):
        rows = played.feedback
        for i, (start, stop) in enumerate(pairwise(rows.starts.tolist())):
            request = DecideRequest(
                context=Features(named={"x": Value(numbers=Numbers(values=rows.context[i]))}),
                actions=[Action(id=rows.action_ids[a], excluded=not rows.available[a]) for a in range(start, stop)],
            )
            served = serve(played.policy, request, rows.decision_id[i], 0)
            assert list(served.probabilities) == rows.probabilities[start:stop].tolist()
            assert served.chosen == rows.chosen[i]
    assert student.policy.update == 5  # nothing follows the last block


def test_masked_actions_are_offered_and_never_drawn() -> None:
    visits = WORLD.visits(0, 2_000, Offer(available=0.5, masked=0.5))
    requests = visits.requests(0, 2_000)
    assert np.diff(requests.starts).min() >= 1
    assert 0.4 < requests.available.mean() < 0.8
    decisions, _ = decide(OnlineStudent(WORLD.point).policy, requests)
    assert (decisions.probabilities[~decisions.available] == 0.0).all()
    assert decisions.available[decisions.chosen_flat].all()
    sums = np.add.reduceat(decisions.probabilities, decisions.starts[:-1])
    assert np.allclose(sums, 1.0)
    offered = PROBLEMS["linear"].visits(0, 2_000, Offer(available=0.5)).requests(0, 2_000)
    assert abs(np.diff(offered.starts).mean() / 5 - 0.5) < 0.03


def test_a_visit_answers_once_and_in_order() -> None:
    visits = WORLD.visits(0, 10, Offer())
    zeros = np.zeros(4, dtype=np.int64)
    visits.rewards(0, zeros)
    with pytest.raises(RuntimeError, match="visit 0 cannot be answered: visit 4 is next"):
        visits.rewards(0, zeros + 1)
    with pytest.raises(RuntimeError, match="visit 4 is next"):
        visits.rewards(5, zeros)
    # What is asked carries no reward, so nothing that learns can look.
    assert np.isnan(visits.requests(4, 10).reward).all()


def test_equal_seeds_give_equal_runs_and_others_differ() -> None:
    one, again, other = simulated(1), simulated(1), simulated(2)
    assert one.value.tobytes() == again.value.tobytes()
    assert one.shortfall.tobytes() == again.shortfall.tobytes()
    assert one.value.tobytes() != other.value.tobytes()
    trees = {"generation": 200, "fit": fit_trees(LightGBMConfig(trees=5))}
    assert simulated(1, **trees).generations == simulated(1, **trees).generations


def test_learning_earns_more_than_uniform_exploration() -> None:
    learned = [simulated(seed, decisions=3_000) for seed in range(3)]
    uniform = [run_world(WORLD, with_exploration(kind="uniform"), Settings(decisions=3_000), seed) for seed in range(3)]
    gain = np.mean([a.value.mean() - b.value.mean() for a, b in zip(learned, uniform, strict=True)])
    assert gain > 0.05
    # The same world for every policy: what the best could have earned is the same.
    for a, b in zip(learned, uniform, strict=True):
        assert a.shortfall.mean() < b.shortfall.mean()


def dataset(count: int, seed: int = 0) -> Dataset:
    return WORLD.visits(seed, count, Offer()).requests(0, count)


@pytest.mark.parametrize("decisions", [0, 3, 7, 100])
def test_a_reward_comes_so_many_decisions_later(decisions: int) -> None:
    rows, delay, released = dataset(40), Delay(decisions), list[str]()
    for stop in range(5, 45, 5):
        due = delay.pass_on(rows.rows(slice(stop - 5, stop)))
        released += [] if due is None else list(due.decision_id)
        assert released == list(rows.decision_id[: max(0, stop - decisions)])


def test_nothing_is_learned_before_the_delay_has_passed() -> None:
    student = OnlineStudent(WORLD.point)
    for played in play(WORLD.visits(0, 100, Offer()), student, block=10, delay=50):
        # The rewards of decision 0 to 9 are known once decision 59 was made.
        first = int(str(played.feedback.decision_id[0]).split("-")[-1])
        assert played.policy.learned == max(0, first - 50)


def test_a_window_forgets() -> None:
    rows = replace(dataset(100), reward=np.linspace(0.0, 1.0, 100), probabilities=np.full(500, 0.2))
    windowed, last = OnlineStudent(WORLD.point, window=30), OnlineStudent(WORLD.point)
    for begin in range(0, 100, 20):
        windowed.learn(rows.rows(slice(begin, begin + 20)))
    last.learn(rows.rows(slice(70, 100)))
    assert windowed.policy.learned == 30
    X, codes = rows.pairs(), rows.codes(last.policy.vocabulary)
    assert np.allclose(windowed.policy.oracle.predict(X, rows.codes(windowed.policy.vocabulary)),
                       last.policy.oracle.predict(X, codes))  # fmt: skip


def test_a_generation_is_frozen_while_it_serves_and_learns_from_its_window() -> None:
    student = BatchStudent(WORLD.point, fit_configured, window=2)
    versions, learned = [], []
    for played in play(WORLD.visits(0, 500, Offer()), student, block=100):
        versions.append(set(played.feedback.policy_version))
        learned.append(played.policy.learned)
        assert played.policy.generation == len(learned) - 1
    assert [len(found) for found in versions] == [1] * 5
    assert len(set.union(*versions)) == 5
    assert learned == [0, 100, 200, 200, 200]


@pytest.mark.parametrize("learning", ["plain", "ips", "mtr", "dr"])
def test_every_learning_finds_the_better_actions(learning: str) -> None:
    policy = PolicyConfig.model_validate(
        {"learning": learning, "exploration": {"kind": "epsilon_greedy", "epsilon": 0.2}}
    )
    point = WORLD.point.model_copy(update={"policy": policy})
    for settings in (Settings(decisions=3_000, publish=100), Settings(decisions=3_000, generation=1_000)):
        assert run_world(WORLD, point, settings, 0).value[1_500:].mean() > 0.54


def test_a_mixed_in_share_bounds_every_probability() -> None:
    student = OnlineStudent(with_exploration(kind="squarecb", gamma_scale=1e6), share=0.2)
    for played in play(WORLD.visits(0, 200, Offer()), student, block=50):
        assert played.feedback.probabilities.min() >= 0.2 / 5 - 1e-12


def test_the_facts_of_a_generation() -> None:
    [played] = play(WORLD.visits(0, 400, Offer()), OnlineStudent(WORLD.point), block=400)
    facts = generation_facts(played)
    assert facts.generation == 0
    assert facts.ess_uniform == pytest.approx(400.0)  # it explores uniformly
    assert (facts.starved, facts.gap) == (0.0, 0.0)
    assert facts.reward == facts.positives == played.feedback.reward.mean()
    greedy = np.zeros(2_000)
    greedy[::5] = 1.0
    first = replace(played.feedback, probabilities=greedy, chosen=np.zeros(400, dtype=np.int64))
    scores = np.tile([0.9, 0.5, 0.5, 0.5, 0.5], 400)
    sure = generation_facts(replace(played, feedback=first, scores=scores))
    assert sure.starved == pytest.approx(0.8)
    assert sure.gap == pytest.approx(0.4)
    assert sure.calibration >= abs(0.9 - float(first.reward.mean())) - 1e-12


def test_the_draws_are_a_function_of_id_salt_and_vector() -> None:
    [played] = play(WORLD.visits(5, 30, Offer()), OnlineStudent(WORLD.point), block=30)
    rows = played.feedback
    assert rows.decision_id[0] == "sim-5-0"
    for i in range(30):
        vector = rows.probabilities[rows.starts[i] : rows.starts[i + 1]].tolist()
        assert draw(rows.decision_id[i], WORLD.point.policy.salt, vector) == rows.chosen[i]


def test_alternation_is_zero_for_steady_and_undefined_for_too_few() -> None:
    assert alternation([0.5, 0.8, 0.8, 0.8]) == pytest.approx(0.0)
    assert np.isnan(alternation([0.5, 0.8]))


@pytest.mark.slow
def test_a_greedy_short_memory_oscillates_and_a_floor_does_not() -> None:
    """Guards the simulator: a good generation leaves little to learn from, and the next one is worse for it."""
    world = PROBLEMS["logistic"]
    policy = PolicyConfig.model_validate({"exploration": {"kind": "squarecb", "gamma_scale": 1e3, "gamma_exponent": 0}})
    point = world.point.model_copy(update={"policy": policy})
    settings = Settings(
        decisions=60_000, generation=10_000, window=1, offer=Offer(0.7), fit=fit_trees(LightGBMConfig(trees=60))
    )
    swings = [alternation(run_world(world, point, settings, seed).rewards) for seed in range(2)]
    assert min(swings) > 0.01
    steady = [alternation(run_world(world, point, replace(settings, share=0.1), seed).rewards) for seed in range(2)]
    assert abs(float(np.mean(steady))) < 0.5 * float(np.mean(swings))
