"""A whole simulation: one policy setting, several seeds, what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from engine.config import DecisionPoint
from engine.policy import Policy
from engine.records import GenerationStatistics
from training.config import DampingConfig
from training.dataset import Dataset
from training.evaluation import ESTIMATORS, LoggedRows, estimate
from training.evaluation.diagnostics import unsupported_mass
from training.simulation.book import statistics_of
from training.simulation.generation import GenerationFacts, alternation, generation_facts
from training.simulation.play import Played, play
from training.simulation.replay import Acceptance, replay
from training.simulation.student import UNDAMPED, BatchStudent, Fit, OnlineStudent, Student, fit_configured
from training.simulation.world import Float64, Int64, Offer, World

#: Of a log, without a model of the reward.
_ESTIMATORS = ("ips", "snips")


@dataclass(frozen=True)
class Settings:
    """How the policy of a decision point is played.

    Attributes
    ----------
    decisions : int, optional
        Decisions of each run; as many as the world or the log has where nothing is said.
    generation : int, optional
        Decisions of each generation, which is fitted in batch at its end; ``None``: learn online.
    publish : int
        Online: decisions between two policies.
    delay : int
        Later decisions after which a reward is known.
    window : int, optional
        Learn from the newest so many generations, or online from so many feedbacks.
    share : float
        Share of uniform exploration that is mixed in.
    offer : Offer
        Which actions are offered.
    fit : callable
        What fits a generation.
    damping : DampingConfig
        What is done against oscillation of generations, and when.
    multiplier : float, optional
        Of a log: see ``Acceptance``.
    """

    decisions: int | None = None
    generation: int | None = None
    publish: int = 10
    delay: int = 0
    window: int | None = None
    share: float = 0.0
    offer: Offer = field(default_factory=Offer)
    fit: Fit = fit_configured
    damping: DampingConfig = UNDAMPED
    multiplier: float | None = None

    @property
    def block(self) -> int:
        """Decisions between two policies."""
        return self.publish if self.generation is None else self.generation

    def student(self, point: DecisionPoint) -> Student:
        """Return somebody who knows nothing yet."""
        if self.generation is None:
            return OnlineStudent(point, self.window, self.share)
        return BatchStudent(point, self.fit, self.window, self.share, self.damping)


@dataclass(frozen=True, eq=False)
class Run:
    """What came of one seed.

    Attributes
    ----------
    seed : int
    value : ndarray of float64, shape (n,)
        Reward of each decision; of a log, its importance-weighted reward.
    generation : ndarray of int64, shape (n,)
        Which generation decided; 0 for all where it learned online.
    shortfall : ndarray of float64, shape (n,)
        See ``Played``.
    generations : list of GenerationFacts
        One for each generation; empty where it learned online.
    books : list of GenerationStatistics
        Their books, as a service keeps them.
    policies : list of Policy
        What each generation served.
    declared : int, optional
        Number of the generation after which an oscillation was declared.
    replayed : dict
        Of a log: estimates, accepted decisions, violations.
    """

    seed: int
    value: Float64
    generation: Int64
    shortfall: Float64
    generations: list[GenerationFacts]
    replayed: dict[str, Any] = field(default_factory=dict)
    books: list[GenerationStatistics] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    declared: int | None = None

    @property
    def rewards(self) -> list[float]:
        """Mean reward of each generation."""
        return [facts.reward for facts in self.generations]


def run_world(
    world: World, point: DecisionPoint, settings: Settings, seed: int, progress: Callable[[int], None] = lambda _: None
) -> Run:
    """Play a world; ``point`` is the world's with the policy to be tried."""
    visits = world.visits(seed, settings.decisions, settings.offer)
    values, shortfalls, numbers = [], [], []
    facts: list[GenerationFacts] = []
    books: list[GenerationStatistics] = []
    policies: list[Policy] = []
    student = settings.student(point)
    for played in play(visits, student, settings.block, settings.delay, progress):
        values.append(played.feedback.reward)
        shortfalls.append(played.shortfall)
        numbers.append(_numbers(played, len(played.feedback)))
        if settings.generation is not None:
            facts.append(generation_facts(played))
            predicted = played.scores[played.feedback.chosen_flat] if played.policy.learned else None
            books.append(statistics_of(played.feedback, played.policy.generation, point.reward.range, predicted))
            policies.append(played.policy)
    declared = student.declared if isinstance(student, BatchStudent) else None
    return Run(
        seed,
        np.concatenate(values),
        np.concatenate(numbers),
        np.concatenate(shortfalls),
        facts,
        books=books,
        policies=policies,
        declared=declared,
    )


def run_log(
    log: Dataset, point: DecisionPoint, settings: Settings, seed: int, progress: Callable[[int], None] = lambda _: None
) -> Run:
    """Replay a log; raises ``ValueError`` where a logged propensity cannot be one."""
    rows = log if settings.decisions is None else log.rows(slice(0, settings.decisions))
    targets, numbers = [], []
    facts: list[GenerationFacts] = []
    accepted = violations = 0
    earned = 0.0
    acceptance = Acceptance(seed, settings.multiplier)
    for replayed in replay(rows, settings.student(point), settings.block, acceptance, settings.delay, progress):
        targets.append(replayed.rows.target)
        feedback = replayed.accepted.feedback
        numbers.append(_numbers(replayed.accepted, len(replayed.rows)))
        accepted += len(feedback)
        earned += float(feedback.reward.sum())
        violations += replayed.violations
        if settings.generation is not None and len(feedback):
            facts.append(generation_facts(replayed.accepted))
    whole = LoggedRows(rows.starts, rows.chosen_flat, rows.reward, rows.probabilities, np.concatenate(targets))
    replayed_facts = {
        "log_reward": float(rows.reward.mean()),
        "accepted": accepted,
        "accepted_reward": earned / accepted if accepted else None,
        "violations": violations,
        "unsupported": unsupported_mass(whole),
        "estimates": {name: asdict(estimate(ESTIMATORS[name], whole)) for name in _ESTIMATORS},
    }
    value = whole.weights * whole.reward
    return Run(seed, value, np.concatenate(numbers), np.full(len(rows), np.nan), facts, replayed_facts)


def _numbers(played: Played, count: int) -> Int64:
    return np.full(count, played.policy.generation, dtype=np.int64)


def summary(runs: list[Run]) -> dict[str, Any]:
    """Return the figures of all seeds as plain JSON values: mean, spread over seeds, and each seed by itself."""
    means = [float(run.value.mean()) for run in runs]
    shortfalls = [float(run.shortfall.mean()) for run in runs]
    told: dict[str, Any] = {
        "decisions": len(runs[0].value),
        "reward": {"mean": float(np.mean(means)), "sd": float(np.std(means, ddof=1)) if len(runs) > 1 else None},
        "shortfall": None if np.isnan(shortfalls).any() else float(np.mean(shortfalls)),
        "seeds": [{"seed": run.seed, "reward": mean, **run.replayed} for run, mean in zip(runs, means, strict=True)],
    }
    if runs[0].generations:
        told["alternation"] = [_or_none(alternation(run.rewards)) for run in runs]
        told["generations"] = [
            {key: _or_none(value) for key, value in asdict(facts).items()} | {"seed": run.seed}
            for run in runs
            for facts in run.generations
        ]
    return told


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else value
