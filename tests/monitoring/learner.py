"""A small learner for the tests of the reward monitor: per-action ridge regression under inverse gap weighting.

Its world: ten classes, a context is the centre of its class plus noise, and an action is rewarded iff it names the
class. From nothing the learner comes from a mean reward of 0.1 to about 0.9 in 3 000 decisions, as a served policy
would: its scores are too high at first (it acts on the largest of ten estimates), and they move as it learns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.records import Action, Decision, Feedback
from monitoring.detector import FloatArray

CLASSES = 10
_SIZE = 16
_PUBLISH = 25  # decisions between two published policies


class RidgeLearner:
    """Serves and learns; ``run`` yields the feedback of its decisions."""

    def __init__(self, seed: int, gamma_scale: float = 10.0) -> None:
        self._rng = np.random.default_rng(seed)
        self._gamma_scale = gamma_scale
        self._centres = self._rng.normal(size=(CLASSES, _SIZE)) * 1.0
        self.meaning = np.arange(CLASSES)  # which action is right for which class
        self._inverse = np.stack([np.eye(_SIZE + 1)] * CLASSES)
        self._moment = np.zeros((CLASSES, _SIZE + 1))
        self._published = np.zeros((CLASSES, _SIZE + 1))
        self._count = 0

    def run(self, decisions: int, uniform_share: float = 0.0) -> Iterator[Feedback]:
        """Decide, learn and yield; ``uniform_share`` mixes more exploration into the probabilities."""
        for _ in range(decisions):
            label = int(self._rng.integers(CLASSES))
            context = np.append(self._centres[label] + self._rng.normal(size=_SIZE), 1.0)
            scores = self._published @ context
            probabilities = (1.0 - uniform_share) * self._explore(scores) + uniform_share / CLASSES
            chosen = int(self._rng.choice(CLASSES, p=probabilities))
            reward = float(self.meaning[label] == chosen)
            self._learn(chosen, context, reward)
            yield feedback(self._count, reward, scores.tolist(), chosen, probabilities.tolist())

    def _explore(self, scores: FloatArray) -> FloatArray:
        gamma = self._gamma_scale * np.sqrt(self._count)
        best = int(scores.argmax())
        probabilities: FloatArray = 1.0 / (CLASSES + gamma * (scores[best] - scores))
        probabilities[best] = 0.0
        probabilities[best] = 1.0 - probabilities.sum()
        return probabilities

    def _learn(self, action: int, context: FloatArray, reward: float) -> None:
        inverse = self._inverse[action]
        direction = inverse @ context
        self._inverse[action] = inverse - np.outer(direction, direction) / (1.0 + context @ direction)
        self._moment[action] += reward * context
        self._count += 1
        if self._count % _PUBLISH == 0:
            self._published = np.einsum("kij,kj->ki", self._inverse, self._moment)


def feedback(
    number: int,
    reward: float,
    scores: list[float] | None = None,
    chosen: int = 0,
    probabilities: list[float] | None = None,
) -> Feedback:
    """Feedback of the decision point ``offers``; its decision time is 1 000 milliseconds times its number."""
    decision = Decision(
        decision_id=f"d{number}",
        decision_point="offers",
        time_ms=1_000 * number,
        policy_version="g0.0-00000000",
        actions=[Action(id=str(k)) for k in range(len(scores or [0.0]))],
        probabilities=probabilities or [1.0],
        chosen=chosen,
        scores=scores or [],
    )
    return Feedback(decision=decision, reward=reward, outcomes=1)
