"""What the console shows, as plain values: read from the log and the policies on disk, by nobody changed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import closing
from typing import Any

import numpy as np

from engine.records import Feedback, JoinAccounting
from engine.serving.tokens import Caller
from engine.store import PolicyStore
from monitoring.equilibrium import fit
from streaming.config import Config
from streaming.console.gate import sees
from streaming.console.lookup import look_up
from streaming.doctor import examine
from streaming.drift import alarm_facts, echoes_of, equilibrium_facts, stands_alone
from streaming.finding import Finding
from streaming.generations import table_facts
from streaming.holds import read_alarms, read_holds
from streaming.intake import feedback_of, newest
from streaming.joiner import read_accounting
from streaming.lag import READ_BY, lag
from streaming.log import Log
from streaming.monitor import read_watch
from streaming.opening import open_existing
from streaming.retraining import LogLedger, generation_table
from streaming.topics import DEAD_LETTERS, FEEDBACK

#: The newest feedback that the plot of rewards is made of, of all decision points together.
PLOTTED = 4_000
#: Points of that plot at most, and feedbacks in each at least.
BINS, LEAST = 40, 20
#: Alarms and generations that are listed.
LISTED = 200
_95 = 1.959964


class Looks:
    """Reads once for all who look at the same time.

    One read at a time: the log of the console has no more to do than that of one command, however many pages are open.

    Parameters
    ----------
    config
        The configuration.
    clock
        Milliseconds since 1970.
    """

    def __init__(self, config: Config, clock: Callable[[], int]) -> None:
        self._config = config
        self._clock = clock
        self._reading = threading.Lock()
        self._seen: dict[Hashable, tuple[float, Any]] = {}

    def forget(self) -> None:
        """Read everything anew from now on: something was changed."""
        with self._reading:
            self._seen.clear()

    def _kept(self, key: Hashable, seconds: float, read: Callable[[], Any]) -> Any:
        """Return what was read within so many seconds, or read it."""
        with self._reading:
            found = self._seen.get(key)
            if found is None or time.monotonic() - found[0] > seconds:
                found = (time.monotonic(), read())
                self._seen[key] = found
            return found[1]

    def _from_log(self, key: Hashable, seconds: float, read: Callable[[Log], Any]) -> Any:
        def opened() -> Any:
            with closing(open_existing(self._config)) as log:
                return read(log)

        return self._kept(key, seconds, opened)

    def health(self, caller: Caller | None) -> dict[str, Any]:
        """Return what ``leeway doctor`` says; who is limited to some decision points sees what is said of these."""
        findings: list[Finding] = self._kept("health", 5.0, lambda: list(examine(self._config, self._clock())))
        if caller is not None and caller.points is not None:
            findings = [finding for finding in findings if _about(finding, caller.points)]
        return {
            "looked_ms": self._clock(),
            "findings": [{"level": f.level.value, "subject": f.subject, "words": f.words} for f in findings],
        }

    def live(self, point: str) -> dict[str, Any]:
        """Return the reward over the newest feedback, with the times of the changes that were found in it."""

        def read(log: Log) -> dict[str, Any]:
            found = [entry for record in newest(log, FEEDBACK, PLOTTED) if (entry := feedback_of(record)) is not None]
            mine = sorted(
                (entry for entry in found if entry.decision.decision_point == point), key=lambda e: e.decision.time_ms
            )
            begin_ms = mine[0].decision.time_ms if mine else 0
            changes = [
                {"change_ms": alarm.change_ms, "explanation": alarm.explanation}
                for alarm in read_alarms(log)
                if alarm.decision_point == point
                and not (alarm.explained or alarm.echo_of)
                and alarm.change_ms >= begin_ms
            ]
            return {"feedback": len(mine), "bins": _bins(mine), "changes": changes[-LISTED:] if mine else []}

        return dict(self._from_log(("live", point), 2.0, read))

    def drift(self, point: str) -> dict[str, Any]:
        """Return how far each stream of the monitors is from its reference, block by block."""

        def read(log: Log) -> dict[str, Any]:
            watch = read_watch(log, point, self._config.deciding[point])
            if watch is None:
                return {"seen": 0, "streams": []}
            lengths = watch.run_lengths()
            streams = [
                {
                    "stream": key,
                    "blocks": series.tolist(),
                    "since_change": lengths.get(key),
                    "equilibrium": equilibrium_facts(fit(series)),
                }
                for key, series in watch.divergences().items()
            ]
            return {
                "seen": watch.seen,
                "change_probability": watch.change_probability,
                "run_length": watch.run_length,
                "streams": streams,
            }

        return dict(self._from_log(("drift", point), 5.0, read))

    def alarms(self, caller: Caller | None) -> dict[str, Any]:
        """Return the newest alarms, the newest first, and what holds promotions."""

        def read(log: Log) -> dict[str, Any]:
            alarms = read_alarms(log)
            holds, echoes = read_holds(log, alarms), echoes_of(alarms)
            held = {name: words for name in self._config.deciding if (words := holds.words(name)) is not None}
            return {
                "alarms": [alarm_facts(a, holds, echoes) for a in reversed(alarms) if a.explained or stands_alone(a)],
                "held": held,
            }

        found = self._from_log("alarms", 2.0, read)
        mine = [alarm for alarm in found["alarms"] if sees(caller, alarm["decision_point"])]
        return {
            "alarms": mine[:LISTED],
            "more": max(0, len(mine) - LISTED),
            "held": {name: words for name, words in found["held"].items() if sees(caller, name)},
        }

    def generations(self, point: str) -> dict[str, Any]:
        """Return the table of generations of a decision point."""
        return dict(
            self._from_log(
                ("generations", point),
                30.0,
                lambda log: table_facts(point, generation_table(self._config, point, log)),
            )
        )

    def policies(self, point: str) -> dict[str, Any]:
        """Return which policy acts, what is tried beside it, and what training has made, the newest first."""

        def read(log: Log) -> dict[str, Any]:
            store = PolicyStore(self._config.policy_dir)
            challenger = store.challenger(point)
            entries = LogLedger(log).generations(point)
            return {
                "acting": store.current(point),
                "movable": point in self._config.decision_points,
                "held": read_holds(log).words(point),
                "challenger": None if challenger is None else challenger.model_dump(),
                "generations": [
                    {
                        "generation": entry.generation,
                        "policy_version": entry.policy_version,
                        "registry_version": entry.registry_version,
                        "oracle": entry.oracle,
                        "reason": entry.reason,
                        "trained_ms": entry.trained_ms,
                        "rows": entry.rows,
                        "promoted": entry.promoted,
                        "verdict": entry.verdict,
                    }
                    for entry in reversed(entries[-LISTED:])
                ],
            }

        return dict(self._from_log(("policies", point), 2.0, read))

    def join(self, caller: Caller | None) -> dict[str, Any]:
        """Return the book of the join, and how far each role is behind."""

        def read(log: Log) -> dict[str, Any]:
            books = read_accounting(log)
            now_ms = self._clock()
            behind = {group: lag(log, group, names).values() for group, names in READ_BY.items()}
            return {
                "points": [
                    {"point": name, "window_ms": settings.reward.window, **_book(books.get(name, JoinAccounting()))}
                    for name, settings in self._config.deciding.items()
                ],
                "lag": [
                    {
                        "role": group,
                        "records": sum(each.records for each in each_topic),
                        "seconds": max((each.seconds(now_ms) for each in each_topic), default=0.0),
                    }
                    for group, each_topic in behind.items()
                ],
                "dead_letters": sum(log.ends(DEAD_LETTERS).values()),
            }

        found = self._from_log("join", 2.0, read)
        return {**found, "points": [book for book in found["points"] if sees(caller, book["point"])]}

    def decision(self, decision_id: str, caller: Caller | None) -> dict[str, Any] | None:
        """Return all that is known of a decision; ``None`` where there is none that the caller may see."""
        with self._reading, closing(open_existing(self._config)) as log:
            return look_up(self._config, log, decision_id, lambda point: sees(caller, point))


def _about(finding: Finding, points: frozenset[str]) -> bool:
    """Whether a finding is about one of these decision points; a quoted dead letter may be of any."""
    return finding.subject != "dead letters" and finding.subject.partition(" ")[0] in points


def _bins(entries: list[Feedback]) -> list[dict[str, Any]]:
    """Return mean rewards over equally many feedbacks each, with 95 % intervals, in the order of the decisions."""
    if not entries:
        return []
    count = max(1, min(BINS, len(entries) // LEAST))
    found = []
    for places in np.array_split(np.arange(len(entries)), count):
        part = entries[int(places[0]) : int(places[-1]) + 1]
        rewards = np.array([entry.reward for entry in part])
        mean = float(rewards.mean())
        reach = _95 * float(rewards.std(ddof=1)) / math.sqrt(len(part)) if len(part) > 1 else math.nan
        found.append(
            {
                "begin_ms": part[0].decision.time_ms,
                "end_ms": part[-1].decision.time_ms,
                "count": len(part),
                "mean": mean,
                "low": mean - reach,
                "high": mean + reach,
                "defaulted": sum(entry.defaulted for entry in part) / len(part),
            }
        )
    return found


def _book(book: JoinAccounting) -> dict[str, Any]:
    return {
        "decisions": book.decisions,
        "rewarded": book.feedback - book.defaulted,
        "defaulted": book.defaulted,
        "pending": book.pending,
        "balanced": book.decisions == book.feedback + book.pending,
        "duplicate_decisions": book.duplicate_decisions,
        "duplicate_outcomes": book.duplicate_outcomes,
        "late_outcomes": book.late_outcomes,
        "surplus_outcomes": book.surplus_outcomes,
        "dead_letters": book.dead_letters,
        "watermark_ms": book.watermark_ms,
    }
