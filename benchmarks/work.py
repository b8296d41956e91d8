"""What each role of `leeway work` costs for one feedback: join, learner, monitors and archive, one after another.

Pairs of a decision (600 bytes, as in the benchmark `streaming`) and its outcome lie in an embedded log. Each role
reads what is there in one thread, after a tenth as many to warm up. Costs are CPU time of this process, the log's
included; the limit beside them is reading and parsing the same feedback and doing nothing with it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import main
from benchmarks._streaming_workload import (
    FEATURES,
    GRACE_MS,
    PER_MS,
    POINT,
    START_MS,
    WINDOW_MS,
    Workload,
    decision_id,
    decisions,
)
from engine.records import Feedback, Outcome
from engine.store import PolicyStore
from streaming.archive import ArchiveRole
from streaming.config import DecisionPointConfig
from streaming.embedded import EmbeddedLog
from streaming.joiner import JoinerRole
from streaming.learner import LearnerRole
from streaming.log import Log, Message
from streaming.loop import Role
from streaming.monitor import MonitorRole
from streaming.serve import now_ms
from streaming.topics import FEEDBACK, topics
from streaming.wire import message_of

RETENTION_MS = 2**50  # events are dated in the past
CONFIG = DecisionPointConfig.model_validate(
    {
        "context": {"c": {"type": "vector", "size": FEATURES}},
        "reward": {"window": f"{WINDOW_MS}ms", "grace": f"{GRACE_MS}ms"},
    }
)


class Reading:
    """The limit: a role that parses each feedback and does nothing with it."""

    def __init__(self, log: Log) -> None:
        self._consumer = log.consumer("reading", [FEEDBACK])

    def step(self, *, timeout_s: float = 0.0) -> int:
        records = self._consumer.poll(2_000, timeout_s)
        for record in records:
            Feedback.FromString(record.value or b"")
        self._consumer.commit()
        return len(records)

    def close(self) -> None:
        self._consumer.close()


def events(start: int, stop: int) -> list[Message]:
    """Return decisions and their outcomes. Half of the rewards are 1, without a pattern: nothing drifts."""
    rewards = np.random.default_rng(start).integers(0, 2, size=stop - start).tolist()
    outcomes = (
        Outcome(
            decision_id=decision_id(number),
            decision_point=POINT,
            outcome_id=f"click-{number:025d}",
            time_ms=START_MS + number // PER_MS + 400,
            value=float(reward),
        )
        for number, reward in zip(range(start, stop), rewards, strict=True)
    )
    return [*decisions(start, stop), *map(message_of, outcomes)]


def drain(role: Role) -> float:
    """Let a role read all that there is; return the CPU seconds that it took."""
    began = time.process_time()
    idle = 0
    while idle < 3:
        idle = 0 if role.step(timeout_s=0.0) else idle + 1
    return time.process_time() - began


def costs(work: Workload, folder: Path) -> dict[str, float]:
    """Return the CPU microseconds of each role for one decision with its outcome."""
    log = EmbeddedLog(folder / "log")
    log.create(topics(4, RETENTION_MS))
    point = CONFIG.engine()
    now = [work.warm_ms]  # the clock of the join, which is set on when all that there is was read: every window closes
    makers: dict[str, Callable[[], Role]] = {
        "join": lambda: JoinerRole(log, {POINT: point.reward}, lambda: now[0], max_skew_ms=2**40),
        "reading": lambda: Reading(log),
        "learner": lambda: LearnerRole(
            log, {POINT: point}, PolicyStore(folder / "policies"), folder / "learner", now_ms
        ),
        "monitors": lambda: MonitorRole(log, {POINT: CONFIG}, now_ms),
        "archive": lambda: ArchiveRole(log, folder / "archive", {POINT: point}, now_ms),
    }
    roles: dict[str, Role] = {}
    try:
        roles["join"] = makers["join"]()
        spent = dict.fromkeys(makers, 0.0)
        for start, stop in ((0, work.warm_up), (work.warm_up, work.total)):
            log.append(events(start, stop))
            spent["join"] = drain(roles["join"])
            now[0] += 10 * (WINDOW_MS + GRACE_MS) + (stop - start) // PER_MS
            spent["join"] += drain(roles["join"])
            for name in list(makers)[1:]:
                if name not in roles:
                    roles[name] = makers[name]()
                spent[name] = drain(roles[name])
            feedback = sum(log.ends(FEEDBACK).values())
            if feedback != stop:
                raise SystemExit(f"{feedback} feedbacks for {stop} decisions: the figures would mean nothing")
        return {name: 1e6 * seconds / work.pairs for name, seconds in spent.items()}
    finally:
        for role in roles.values():
            role.close()
        log.close()


def measure(quick: bool) -> dict[str, Any]:
    work = Workload(20_000, 2_000) if quick else Workload(100_000, 10_000)
    runs: list[dict[str, float]] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(costs(work, Path(folder)))
    medians = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
    behind = sum(medians[name] for name in ("learner", "monitors", "archive"))
    ratio = round(
        statistics.median(sum(r[n] for n in ("learner", "monitors", "archive")) / r["reading"] for r in runs), 2
    )
    return {
        "pairs": work.pairs,
        "rounds": len(runs),
        "cpu_us_per_decision": medians,
        "work_without_join_us": round(behind, 2),
        "work_without_join_per_second_and_core": round(1e6 / behind),
        "work_without_join_over_reading": ratio,
    }


if __name__ == "__main__":
    main(__doc__, measure)
