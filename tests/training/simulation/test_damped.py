"""Generations in a simulation that are damped serve ordinary policies, with exact vectors."""

from __future__ import annotations

import numpy as np

from engine.config import PolicyConfig
from engine.oracles import MixtureOracle
from monitoring.generations import mean_reward
from training.config import DampingConfig
from training.evaluation.target import policy_pmf
from training.simulation.generator import PROBLEMS
from training.simulation.play import play
from training.simulation.run import Settings, run_world
from training.simulation.student import BatchStudent, fit_configured
from training.simulation.world import Offer

WORLD = PROBLEMS["linear"]
POINT = WORLD.point.model_copy(update={"policy": PolicyConfig()})
DAMPED = DampingConfig(when="always", floor=0.1, blend=3, mixture=0.5, calibrated_gamma=True)


def test_a_damped_generation_serves_a_mixture_with_a_floor() -> None:
    student = BatchStudent(POINT, fit_configured, 1, damping=DAMPED)
    played = list(play(WORLD.visits(0, 1_600, Offer(0.8)), student, 400))
    last = played[-1]
    assert isinstance(last.policy.oracle, MixtureOracle)
    assert len(last.policy.oracle.members) == 3
    assert last.policy.learned == 1_200  # of three generations
    p = last.feedback.probabilities
    assert np.array_equal(policy_pmf(last.policy, last.feedback), p)
    counts = np.diff(last.feedback.starts)
    assert (p >= 0.1 / np.repeat(counts, counts) - 1e-12).all()


def test_a_run_keeps_the_books_that_a_service_keeps() -> None:
    settings = Settings(decisions=1_200, generation=400, window=1, offer=Offer(0.8))
    run = run_world(WORLD, POINT, settings, 0)
    assert [book.generation for book in run.books] == [0, 1, 2]
    assert [mean_reward(book) for book in run.books] == run.rewards
    assert [policy.generation for policy in run.policies] == [0, 1, 2]
    assert sum(run.books[0].predicted_counts) == 0  # it had learned nothing to predict by
    assert sum(run.books[1].predicted_counts) == 400
    assert run.books[0].weight_sum == 400.0  # uniform
