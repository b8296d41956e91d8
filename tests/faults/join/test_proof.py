"""The proof of the proof, in one process on the embedded log: a right joiner passes, and no wrong one does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from streaming.embedded import EmbeddedLog
from streaming.joiner import JoinerRole
from streaming.log import Log, Message
from streaming.patience import MOST_PATIENCE_MS
from streaming.topics import FEEDBACK, JOIN_STATE, LATE, topics
from tests.faults.join import audit
from tests.faults.join.intercepted import Offsets, intercepted
from tests.faults.join.workload import END_MS, POINTS, START_MS, rounds, workload
from tests.faults.join.wrong import (
    Death,
    Making,
    Mortality,
    forgetful,
    offsets_first,
    offsets_last,
    right,
    stammering,
    state_last,
)

PARTITIONS = 4
FOR_EVER = 10**13  # 317 years: the records here are of 1970


def run(folder: Path, decisions: int, making: Making) -> tuple[list[str], int]:
    """Join a workload while joiners come and die; return the differences from the batch, and the number of deaths."""
    rng = random.Random(7)
    perhaps_die = Mortality(rng, 0.05)
    commit = making(perhaps_die)
    now_ms = START_MS

    def mortal(log: Log, writer: str, messages: Sequence[Message], offsets: Offsets) -> None:
        perhaps_die()
        commit(log, writer, messages, offsets)
        perhaps_die()

    with closing(EmbeddedLog(folder, fsync=False)) as log:
        log.create(topics(PARTITIONS, FOR_EVER))

        def joiner() -> JoinerRole:
            return JoinerRole(intercepted(log, mortal), POINTS, lambda: now_ms, batch=50)

        def step() -> None:
            number = rng.randrange(len(members))
            try:
                members[number].step()
            except Death:
                members[number].close()
                members[number] = joiner()

        members = [joiner()]
        plan = list(rounds(workload(decisions, seed=1), 300))
        for number, (messages, clock_ms) in enumerate(plan):
            if number == len(plan) // 4:
                members += [joiner(), joiner()]
            if number == len(plan) // 2:
                members.pop(0).close()
            log.append(messages)
            now_ms = clock_ms
            for _ in range(rng.randrange(12)):
                step()
        now_ms = END_MS
        for _ in range(30):  # a wrong joiner may never come to an end
            if audit.remaining(log) == 0:
                break
            for _ in range(20):
                step()
            now_ms += MOST_PATIENCE_MS  # what was over when it was read stays open for so long
        return audit.differences(audit.expected(log), audit.found(log)), perhaps_die.deaths


def test_joiners_that_die_at_their_commits_join_as_the_batch_does(tmp_path: Path) -> None:
    differences, deaths = run(tmp_path, 3_000, right)
    assert differences == []
    assert deaths >= 10


@pytest.mark.parametrize(
    ("making", "complaint"),
    [
        (offsets_first, "feedback lost"),
        (offsets_last, "the books say"),
        (state_last, "feedback lost"),
        (forgetful(JOIN_STATE, 5), "feedback lost"),
        (forgetful(FEEDBACK, 20), "feedback lost"),
        (forgetful(LATE, 3), "late lost"),
        (stammering, "feedback repeated"),
    ],
    ids=["offsets first", "offsets last", "state last", "state lost", "feedback lost", "late lost", "said twice"],
)
def test_a_wrong_joiner_is_found_out(tmp_path: Path, making: Making, complaint: str) -> None:
    differences, _ = run(tmp_path, 1_500, making)
    assert complaint in "\n".join(differences)
