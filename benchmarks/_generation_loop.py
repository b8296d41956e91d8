"""The closed loop over twenty generations: undamped, damped of itself, and controls in which nothing oscillates.

A control is a loop whose generations are no cause of each other, or whose memory never ends: what the test declares
there is declared falsely.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.config import DecisionPoint, PolicyConfig
from engine.policy import Policy, initial_policy
from engine.records import Generation
from training.config import DampingConfig, LightGBMConfig
from training.dataset import Dataset
from training.fit import candidate
from training.generations import GenerationTable, reference_set, table
from training.simulation.generation import GenerationFacts
from training.simulation.generator import PROBLEMS
from training.simulation.play import decide
from training.simulation.run import Run, Settings, run_world
from training.simulation.student import NAME, UNDAMPED, Student, fit_trees
from training.simulation.world import START_MS, Offer

WORLD = PROBLEMS["logistic"]
OFFER = Offer(0.7)
TREES = fit_trees(LightGBMConfig(trees=60, leaves=15, min_child=20))
GREEDY = {"kind": "squarecb", "gamma_scale": 1_000.0, "gamma_exponent": 0.0}
#: Test and damping as they are where a decision point's file says nothing.
AUTOMATIC = DampingConfig()
PROCESSES = 2


@dataclass(frozen=True)
class Setting:
    """A policy over generations.

    Attributes
    ----------
    exploration
        Its exploration.
    window
        Generations that are learned from; ``None``: all.
    share
        Of uniform exploration.
    damping
        Against oscillation.
    independent
        Each generation is fitted on a uniform log of its own, and on nothing that another has done.
    """

    exploration: dict[str, Any]
    window: int | None
    share: float = 0.0
    damping: DampingConfig = UNDAMPED
    independent: bool = False


UNDAMPED_LOOP = "undamped"
DAMPED_LOOP = "damped automatically"
LOOPS = {
    UNDAMPED_LOOP: Setting(GREEDY, 1),
    DAMPED_LOOP: Setting(GREEDY, 1, damping=AUTOMATIC),
    "control: independent logs": Setting(GREEDY, 1, independent=True),
    "control: everything remembered": Setting(GREEDY, None),
    "control: uniform": Setting({"kind": "uniform"}, 1),
}


class IndependentStudent:
    """Fits each generation on a uniform log of its own: generations that cannot oscillate, for none causes another."""

    def __init__(self, point: DecisionPoint, seed: int) -> None:
        self._point = point
        self._seed = seed
        self.policy: Policy = initial_policy(NAME, point, START_MS)

    def learn(self, feedback: Dataset) -> None:
        """Fit the next generation on as many uniform decisions as there was feedback."""
        number = self.policy.generation + 1
        visits = WORLD.visits(1_000 * (1 + self._seed) + number, len(feedback), OFFER)
        uniform = initial_policy(NAME, self._point, START_MS)
        made, _ = decide(uniform, visits.requests(0, len(feedback)))
        log = replace(made, reward=visits.rewards(0, made.chosen))
        self.policy = candidate(
            NAME, self._point, TREES(log, self._point, None), generation=number, created_ms=START_MS
        )


@dataclass(frozen=True)
class _Independent(Settings):
    seed: int = 0

    def student(self, point: DecisionPoint) -> Student:
        return IndependentStudent(point, self.seed)


@dataclass(frozen=True)
class Loop:
    """What came of one seed of one setting, without its policies."""

    seed: int
    facts: list[GenerationFacts]
    ledger: GenerationTable | None
    declared: int | None

    @property
    def rewards(self) -> list[float]:
        """Mean reward of each generation."""
        return [facts.reward for facts in self.facts]


def play_loop(setting: Setting, seed: int, generations: int, decisions: int, judged: bool) -> Loop:
    """Play one seed; ``judged``: put its ledger together, as ``leeway generations`` does."""
    policy = PolicyConfig.model_validate({"exploration": setting.exploration})
    point: DecisionPoint = WORLD.point.model_copy(update={"policy": policy})
    settings = Settings(
        decisions=generations * decisions,
        generation=decisions,
        window=setting.window,
        share=setting.share,
        offer=OFFER,
        fit=TREES,
        damping=setting.damping,
    )
    if setting.independent:
        settings = _Independent(**{**vars(settings), "seed": seed})
    run = run_world(WORLD, point, settings, seed)
    ledger = _ledger(run) if judged else None
    found = run.declared
    if found is None and ledger is not None and setting.damping.when == "never":
        found = ledger.state.declared
    return Loop(seed, run.generations, ledger, found)


def _ledger(run: Run) -> GenerationTable:
    """Judge a finished run as its ledger would have been judged while it grew, once declared for good."""
    policies = {policy.version: policy for policy in run.policies}
    entries = [
        Generation(generation=policy.generation, policy_version=policy.version, promoted=True)
        for policy in run.policies
        if policy.generation
    ]
    reference = reference_set(WORLD.visits(10_000_000, 512, OFFER).requests(0, 512))
    watching = AUTOMATIC.model_copy(update={"generations": len(entries)})
    return table(entries, run.books, watching, policies.get, reference)


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """Give processes that play seeds side by side."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool


def play_all(
    pool: ProcessPoolExecutor,
    settings: dict[str, Setting],
    seeds: int,
    generations: int,
    decisions: int,
    *,
    judged: bool,
) -> dict[str, list[Loop]]:
    """Play all seeds of all settings."""
    asked = {
        name: [pool.submit(play_loop, setting, seed, generations, decisions, judged) for seed in range(seeds)]
        for name, setting in settings.items()
    }
    return {name: [future.result() for future in futures] for name, futures in asked.items()}


def swing(rewards: Sequence[float], first: int) -> float:
    """Return how far odd and even generations from ``first`` on are apart, whichever earns more."""
    tail = rewards[first:]
    return abs(float(np.mean(tail[::2]) - np.mean(tail[1::2])))
