"""The live loop: decide, draw, earn, learn, with the parts that the service is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from engine.policy import Policy
from engine.sampling import draw
from training.dataset import Dataset
from training.evaluation.target import pmf_of_prediction, policy_prediction
from training.simulation.student import Student
from training.simulation.world import Float64, Int64, Visits


@dataclass(frozen=True, eq=False)
class Played:
    """Decisions of one policy with what came of them.

    Attributes
    ----------
    policy
        What decided.
    feedback
        The decisions, joined with their rewards.
    scores : ndarray of float64, shape (m,)
        What the oracle expected of every offered action.
    shortfall : ndarray of float64, shape (n,)
        By how much the best available action was better in expectation; NaN where nobody knows.
    """

    policy: Policy
    feedback: Dataset
    scores: Float64
    shortfall: Float64


def decide(policy: Policy, requests: Dataset) -> tuple[Dataset, Float64]:
    """Return the decisions of a policy, and its oracle's scores of all offered actions.

    The vectors are those that the policy would serve, bit for bit, and the draws those of ``engine.sampling``.
    """
    prediction = policy_prediction(policy, requests)
    probabilities = pmf_of_prediction(policy, requests, prediction)
    vector, salt = probabilities.tolist(), policy.point.policy.salt
    chosen: Int64 = np.fromiter(
        (
            draw(decision_id, salt, vector[start:stop])
            for decision_id, (start, stop) in zip(requests.decision_id, pairwise(requests.starts.tolist()), strict=True)
        ),
        np.int64,
        len(requests),
    )
    versions = np.full(len(requests), policy.version, dtype=np.object_)
    return replace(requests, probabilities=probabilities, chosen=chosen, policy_version=versions), prediction.mean


class Delay:
    """Holds feedback back until so many decisions have been made after its own."""

    def __init__(self, decisions: int) -> None:
        self._decisions = decisions
        self._held: deque[Dataset] = deque()

    def pass_on(self, feedback: Dataset) -> Dataset | None:
        """Take new feedback in; return what is due by now, in order, or nothing."""
        self._held.append(feedback)
        due = sum(map(len, self._held)) - self._decisions
        released: list[Dataset] = []
        while due > 0:
            first = self._held.popleft()
            released.append(first if len(first) <= due else first.rows(slice(0, due)))
            if len(first) > due:
                self._held.appendleft(first.rows(slice(due, None)))
            due -= len(released[-1])
        return Dataset.concatenate(released) if released else None


def play(
    visits: Visits, student: Student, block: int, delay: int = 0, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Played]:
    """Play a world to its end; yield the decisions block by block.

    Parameters
    ----------
    visits
        The world's run; it alone knows the rewards.
    student
        What decides and learns.
    block
        Decisions between two policies: within it the policy is frozen, at its end what is due is learned.
    delay
        A reward is known once so many later decisions have been made.
    progress
        Is told the number of decisions after each block.
    """
    held = Delay(delay)
    for begin in range(0, len(visits), block):
        stop = min(begin + block, len(visits))
        policy = student.policy
        decisions, scores = decide(policy, visits.requests(begin, stop))
        shortfall = visits.shortfall(begin, decisions.chosen)
        feedback = replace(decisions, reward=visits.rewards(begin, decisions.chosen))
        yield Played(policy, feedback, scores, shortfall)
        due = held.pass_on(feedback)
        if due is not None and stop < len(visits):
            student.learn(due)
        progress(stop)
