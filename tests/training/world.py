"""A small bandit world whose decisions are made by real policies, so that every propensity is true."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from engine.config import DecisionPoint
from engine.oracles import LinearLearner
from engine.policy import Policy, initial_policy
from engine.records import Action, Decision, Features, Feedback, Numbers, Value
from engine.sampling import draw
from training.archive import ArchiveWriter
from training.archive.columns import to_table
from training.archive.encoding import encode
from training.dataset import Dataset

NAME = "offers"
START_MS = 1_767_225_600_000
ACTIONS = ("north", "east", "south", "west")

#: Explores enough that a few hundred feedbacks say something of a policy that prefers other actions.
POINT = DecisionPoint.model_validate(
    {
        "context": {"taste": {"type": "vector", "size": 4}, "segment": {"type": "text", "buckets": 4}},
        "actions": {"features": {"price": {"type": "number", "scale": 0.5}}},
        "policy": {"exploration": {"kind": "squarecb", "gamma_scale": 1.0, "gamma_exponent": 0.25}},
    }
)


class World:
    """Each context has one right action, rewarded in 85 of 100 cases; the others in 15.

    Parameters
    ----------
    seed
        Of contexts and rewards.
    shift
        By how many places the right action is moved: another shift is a world that has drifted.
    """

    def __init__(self, seed: int, shift: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self.shift = shift
        self.time_ms = START_MS

    def stream(self, policy: Policy | None, count: int, *, excluded: bool = False) -> list[Feedback]:
        """Return the feedback of so many decisions of a policy (``None``: one that has learned nothing)."""
        policy = policy or initial_policy(NAME, POINT, START_MS)
        return [self._feedback(policy, excluded) for _ in range(count)]

    def _feedback(self, policy: Policy, excluded: bool) -> Feedback:
        self.time_ms += 1_000
        kind = int(self._rng.integers(4))
        taste = np.eye(4)[kind] + self._rng.normal(scale=0.1, size=4)
        decision = Decision(
            decision_id=f"d-{self.time_ms}",
            decision_point=NAME,
            time_ms=self.time_ms,
            policy_version=policy.version,
            context=Features(
                named={"taste": Value(numbers=Numbers(values=taste)), "segment": Value(text=f"s{kind % 2}")}
            ),
            actions=[
                Action(
                    id=action,
                    features={"price": Value(number=float(self._rng.integers(1, 4)))},
                    excluded=excluded and place == self.time_ms // 1_000 % 7,
                )
                for place, action in enumerate(ACTIONS)
            ],
            salt=POINT.policy.salt,
        )
        encoded = policy.encoder.encode(decision.context, decision.actions)
        prediction = policy.predict(encoded)
        decision.probabilities.extend(policy.pmf(prediction, encoded.available))
        decision.scores.extend(prediction.mean)
        decision.chosen = draw(decision.decision_id, decision.salt, decision.probabilities)
        right = decision.chosen == (kind + self.shift) % 4
        reward = float(self._rng.random() < (0.85 if right else 0.15))
        return Feedback(decision=decision, reward=reward, outcomes=1, reward_time_ms=self.time_ms + 500)


def dataset_of(feedback: Sequence[Feedback]) -> Dataset:
    """Return feedback as the archive would give it back."""
    file = io.BytesIO()
    pq.write_table(to_table(POINT, feedback), file)
    return Dataset.concatenate([encode(b, POINT, "test") for b in pq.ParquetFile(file).iter_batches()])


def archive_of(feedback: Sequence[Feedback], directory: Path) -> Path:
    """Write feedback to an archive and return its directory."""
    with ArchiveWriter(directory, {NAME: POINT}) as writer:
        assert writer.append(feedback, {0: len(feedback)}) == []
    return directory


def trained(world: World, count: int, generation: int = 1) -> Policy:
    """Return the policy that has learned online from uniform exploration of a world."""
    rows = dataset_of(world.stream(None, count))
    learner = LinearLearner(rows.width)
    learner.partial_fit(rows.chosen_matrix(), rows.chosen_actions(), rows.reward)
    return Policy(NAME, POINT, tuple(learner.vocabulary), learner.oracle(), generation, 3, count, START_MS)
