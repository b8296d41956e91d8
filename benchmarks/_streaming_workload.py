"""What the streaming benchmark feeds to everybody: decisions with one outcome each, the same bytes in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from engine.config import RewardConfig
from engine.records import Action, Decision, Features, Outcome
from streaming.log import Message
from streaming.wire import message_of

POINT = "page"
ACTIONS = 10
FEATURES = 20
START_MS = 1_700_000_000_000
#: Ten decisions in a millisecond of event time: some 12,000 windows are open at a time.
PER_MS = 10
WINDOW_MS = 1_000
GRACE_MS = 200
#: Outcomes come up to so long after their decision: none is late.
DELAY_MS = 800


@dataclass(frozen=True, slots=True)
class Workload:
    """Pairs of a decision and its outcome.

    Parameters
    ----------
    pairs
        How many are measured.
    warm_up
        How many come before: connections, group and caches are in use when the measurement begins.
    """

    pairs: int
    warm_up: int

    @property
    def total(self) -> int:
        return self.warm_up + self.pairs

    @property
    def warm_ms(self) -> int:
        """Time of the last decision of the warm-up."""
        return START_MS + self.warm_up // PER_MS

    @property
    def end_ms(self) -> int:
        """A time at which every window has closed."""
        return START_MS + self.total // PER_MS + DELAY_MS + WINDOW_MS + GRACE_MS + 1

    def warming(self) -> tuple[Message, ...]:
        """Return the messages of the warm-up: decisions, then outcomes."""
        return messages(0, self.warm_up)

    def measured(self) -> tuple[Message, ...]:
        """Return the messages that are measured: decisions, then outcomes, each in the order of time."""
        return messages(self.warm_up, self.total)

    def rewards(self) -> dict[str, float]:
        """Return the reward that each decision must get."""
        return {decision_id(number): reward(number) for number in range(self.total)}

    def as_arguments(self) -> dict[str, int]:
        return asdict(self)


def rewards_config(window_ms: int = WINDOW_MS) -> dict[str, RewardConfig]:
    return {POINT: RewardConfig(window=window_ms, grace=GRACE_MS)}


def decision_id(number: int) -> str:
    # The bits of a counter, mixed: ids as even over partitions as random ones, and the same in every run.
    return f"{(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def reward(number: int) -> float:
    return number % 1_000 / 1_000


@lru_cache(maxsize=2)
def messages(start: int, stop: int) -> tuple[Message, ...]:
    """Return decisions of some numbers, then their outcomes in the order of time."""
    delays = np.random.default_rng(7).integers(1, DELAY_MS, size=stop)[start:].tolist()
    outcomes = [outcome(number, delay) for number, delay in zip(range(start, stop), delays, strict=True)]
    outcomes.sort(key=lambda made: made.time_ms)
    return (*decisions(start, stop), *map(message_of, outcomes))


def decisions(start: int, stop: int) -> Iterator[Message]:
    """Make the messages of some decisions."""
    draw = random.Random(start)
    context = [np.random.default_rng(number).random(FEATURES, dtype="<f4").tobytes() for number in range(64)]
    actions = [Action(id=f"article-{number:016d}") for number in range(ACTIONS)]
    for number in range(start, stop):
        scores = [draw.random() for _ in range(ACTIONS)]
        whole = sum(scores)
        yield message_of(
            Decision(
                decision_id=decision_id(number),
                decision_point=POINT,
                time_ms=START_MS + number // PER_MS,
                policy_version="g3.17-3fa9c1de",
                context=Features(packed=context[number % 64]),
                actions=actions,
                probabilities=[score / whole for score in scores],
                chosen=number % ACTIONS,
                scores=scores,
                salt="leeway",
            )
        )


def outcome(number: int, delay_ms: int) -> Outcome:
    return Outcome(
        decision_id=decision_id(number),
        decision_point=POINT,
        outcome_id=f"click-{number:025d}",
        time_ms=START_MS + number // PER_MS + delay_ms,
        value=reward(number),
    )
