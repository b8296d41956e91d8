"""The trial of the join: records come while joiners are killed, come and go, and the log itself breaks down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streaming.kafka.settings import KafkaSettings
from streaming.log import Log
from streaming.patience import MOST_PATIENCE_MS
from tests.faults.join import audit
from tests.faults.join.crew import PATIENCE_S, Crew, Member
from tests.faults.join.member import Orders, open_log, set_clock
from tests.faults.join.workload import END_MS, START_MS, rounds, workload

PARTITIONS = 4
#: The part of the kills that hit a joiner soon after it has begun a transaction; others hit it at any time, also while
#: it starts.
IN_TRANSACTION = 0.6
#: A fraction of what a transaction takes, and a process from its start to its first step, roughly.
WRITING_S = 0.01
STARTING_S = 2.5
#: Longer than the session of a member of the group.
FROZEN_S = 10.0


@dataclass(frozen=True)
class Size:
    """How long a trial is.

    Parameters
    ----------
    decisions
        How many; with their outcomes there are more than twice as many records.
    kills
        How many joiners are killed and start again.
    freezes
        How many joiners stand still in the midst of a transaction until others have taken over their part, and then
        go on as if nothing had happened.
    round
        How many records come at a time, and are taken in one step at most: there have to be many steps to be hit.
    """

    decisions: int
    kills: int
    freezes: int
    round: int


@dataclass
class Result:
    """What came of a trial.

    Parameters
    ----------
    differences
        From the batch join; see ``audit.differences``.
    kills, in_transaction
        How often a joiner was killed, and how often in the midst of a transaction.
    failed_steps
        How many steps of joiners failed, and were done again.
    """

    differences: list[str] = field(default_factory=list)
    kills: int = 0
    in_transaction: int = 0
    failed_steps: int = 0


def endure(
    folder: Path,
    where: Callable[[str], KafkaSettings],
    size: Size,
    breakdowns: Mapping[float, Callable[[], None]],
) -> Result:
    """Put the join through it.

    Parameters
    ----------
    folder
        For the clock and what the joiners complain of.
    where
        Gives the settings of the log for a process of that name.
    size
        How long it is.
    breakdowns
        What happens to the log, by when: the part of the records that has come.
    """
    rng = random.Random(3)
    plan = list(rounds(workload(size.decisions, seed=2), size.round))
    broken = {int(part * len(plan)): breakdown for part, breakdown in breakdowns.items()}
    first, last = 2, len(plan) - 8  # behind there is little to do
    kills = set(rng.sample(range(first, last), size.kills))
    freezes = set(rng.sample(range(len(plan) // 3, last), size.freezes))
    result = Result(kills=size.kills + 1)
    clock = folder / "clock"
    set_clock(clock, START_MS)

    def orders(number: int) -> Orders:
        return Orders(log=where(f"joiner-{number}"), partitions=PARTITIONS, clock=clock, batch=size.round)

    with Crew(orders, folder) as crew:
        log = open_log(where("feeder"), PARTITIONS)
        try:
            crew.hire(0)
            for number, (messages, clock_ms) in enumerate(plan):
                if number == len(plan) // 4:
                    crew.hire(1, 2)
                if number == len(plan) * 2 // 3:  # it is never seen again
                    result.in_transaction += crew.members.pop(rng.randrange(3)).kill()
                if number in broken:
                    log.close()
                    broken[number]()
                    log = open_log(where("feeder"), PARTITIONS)
                begun = crew.begun()
                log.append(messages)
                set_clock(clock, clock_ms)
                if number in freezes:
                    crew.await_transaction(begun).freeze(FROZEN_S)
                if number in kills:
                    result.in_transaction += _kill(crew, begun, rng)
            _await_end(log, crew, clock)
            for member in crew.members:  # before the audit: one may still stand there with a transaction in its hands
                member.stop()
                result.failed_steps += len(member.errors)
            result.differences = [
                *audit.not_as_fed(log, (message for messages, _ in plan for message in messages)),
                *audit.differences(audit.expected(log), audit.found(log)),
            ]
        finally:
            log.close()
    return result


def _kill(crew: Crew, begun: Mapping[Member, int], rng: random.Random) -> bool:
    """Kill a joiner, and start it again: in the midst of a transaction, at any time, or while it starts."""
    if rng.random() < IN_TRANSACTION:
        victim = crew.await_transaction(begun)
        time.sleep(rng.choice((0.0, rng.expovariate(1 / WRITING_S))))
    else:
        victim = rng.choice(crew.members)
        time.sleep(rng.uniform(0.0, STARTING_S))
    hit = victim.kill()
    victim.start()
    return hit


def _await_end(log: Log, crew: Crew, clock: Path) -> None:
    """Wait until nothing remains to be done, for as long as it gets less."""
    now_ms = END_MS
    set_clock(clock, now_ms)
    least, since = audit.remaining(log), time.monotonic()
    while least:
        time.sleep(0.2)
        now_ms += MOST_PATIENCE_MS  # what was over when it was read stays open for so long
        set_clock(clock, now_ms)
        remaining = audit.remaining(log)
        if remaining < least:
            least, since = remaining, time.monotonic()
        assert time.monotonic() - since < PATIENCE_S, f"{remaining} remain; {crew.report()}"
