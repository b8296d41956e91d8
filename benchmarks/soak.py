"""Half an hour at seven tenths of the capacity: does memory grow, does the book close, is every propensity true?

The capacity is that of the whole chain: what one serving process answers in a closed loop, or what the worker makes
feedback of, whichever is less. Then decisions come at a steady rate, three of ten with an outcome, one of ten deferred,
and half of those activated. Meanwhile the learner publishes a policy every five seconds, clients die with calls under
way, and in the first sixth the worker is killed, ended and killed again: so its last life is a long one. At the end the
windows close, and

    decisions in the log = feedback + pending + unactivated + duplicates

has to hold. Every ten seconds some of the newest decisions are computed again from their policies' snapshots. The slope
of a process's resident memory is that of the least of each block, each life of the process with a level of its own and
without its first fifth, with an interval of 95 %; the most that it had, as while it merges files of the archive, is
told beside. A run of a minute shows that the benchmark works; its slopes say nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._harness import arguments, goal, write
from benchmarks._open_load import OpenLoad, Phase
from benchmarks._process_memory import Slope, resident_mib, slope
from benchmarks._serving_forms import cores
from benchmarks._serving_load import Load, burst
from benchmarks._soak_world import CALLS_PER_DECISION, DECIDE, SHAPE, Callers, World, die, world
from engine.records import JoinAccounting

SHARE = 0.7
DEADLINE_S = 2.0
#: MiB an hour, for the upper end of the interval.
MOST_GROWTH = 64.0
AUDIT_S, DIE_S, TELL_S = 10.0, 5.0, 10.0
AUDITED = 20
#: How the worker ends, and when, as a share of the run.
ENDS = ((0.05, signal.SIGKILL), (0.1, signal.SIGTERM), (0.15, signal.SIGKILL))
PATIENCE_S = 300.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def settled(of: World) -> JoinAccounting:
    """Wait until nothing is pending, or nothing changes any more; return the book."""
    end = time.monotonic() + of.window_s + PATIENCE_S
    while True:
        book = of.book()
        logged = of.logged()
        if (book.pending == 0 and book.decisions + book.duplicate_decisions >= logged) or time.monotonic() > end:
            return book
        say(f"{logged} decisions in the log, {book.decisions} joined, {book.pending} pending")
        time.sleep(1.0)


def capacity(of: World, seconds: float) -> dict[str, float]:
    """Return calls a second that are answered, and decisions a second that become feedback."""
    load = Load(of.port, DECIDE, [request.SerializeToString() for request in SHAPE.packed()])
    began = time.monotonic()
    answered = burst(load, of.processes["serve"].pid, seconds).figures()["per_second"]
    book = settled(of)
    # The last window closes a window's length after the last decision.
    joined = book.feedback / max(time.monotonic() - began - of.window_s, seconds)
    return {"answered_per_second": round(answered, 1), "joined_per_second": round(joined, 1)}


class Memory:
    """The resident memory of each life of each process."""

    def __init__(self) -> None:
        self._lives: dict[tuple[str, int], list[tuple[float, float]]] = {}

    def look(self, of: World, now: float) -> None:
        for role, process in of.processes.items():
            self._lives.setdefault((role, process.pid), []).append((now, resident_mib(process.pid)))

    def slope(self, role: str, block_s: float) -> Slope | None:
        lives = [life[len(life) // 5 :] for (name, _), life in self._lives.items() if name == role]
        return slope([([at for at, _ in life], [mib for _, mib in life]) for life in lives], block_s)

    def last(self, role: str) -> float:
        return [life[-1][1] for (name, _), life in self._lives.items() if name == role][-1]

    def most(self, role: str) -> float:
        return max(mib for (name, _), life in self._lives.items() if name == role for _, mib in life)


def run(of: World, seconds: float, rate: float) -> dict[str, Any]:
    """Soak for some seconds at so many decisions a second."""
    everywhere = set().union(*cores())
    callers, memory = Callers(), Memory()
    load = OpenLoad(of.port, callers, DEADLINE_S, heard=callers.heard)
    audited, differences, deaths, restarts = 0, [], 0, 0
    audit_at, die_at, tell_at = AUDIT_S, DIE_S, TELL_S
    ends = [(seconds * share, how) for share, how in ENDS]
    while (now := load.now()) < seconds:
        load.play(Phase(rate, 0.25))
        for path, message in callers.follow:
            load.add(path, message, load.now())
        callers.follow.clear()
        if of.runs("serve") and of.runs("work"):
            memory.look(of, now)
        if now > die_at:
            die(of.port, stream=bool(deaths % 2))
            deaths, die_at = deaths + 1, now + DIE_S
        if ends and now > ends[0][0]:
            _, how = ends.pop(0)
            of.end("work", how)
            of.begin("work", everywhere)
            restarts += 1
        if now > audit_at:
            found = of.audit(AUDITED)
            audited += len(found)
            differences += [difference for difference in found if difference]
            audit_at = now + AUDIT_S
        if now > tell_at:
            mib = {role: memory.last(role) for role in of.processes}
            say(
                f"{now:.0f} of {seconds:.0f} s: {dict(callers.ends)}, MiB {mib}, {audited} audited, {restarts} restarts"
            )
            tell_at = now + TELL_S
    load.settle()
    load.close()
    return {
        "decisions_per_second": round(rate, 1),
        "ends": dict(callers.ends),
        "audited": audited,
        "wrong": differences[:10],
        "wrong_count": len(differences) + len(callers.wrong),
        "clients_died": deaths,
        "worker_restarts": restarts,
        "policy_swaps": of.swaps(),
        "slopes": {role: memory.slope(role, max(2.0, seconds / 30.0)) for role in ("serve", "work")},
        "most_resident_mib": {role: memory.most(role) for role in ("serve", "work")},
        "resident_mib": {role: memory.last(role) for role in ("serve", "work")},
    }


def measure(minutes: float, quick: bool) -> dict[str, Any]:
    theirs, ours = cores()
    everywhere = theirs | ours
    os.sched_setaffinity(0, ours)
    window_s = 3.0 if quick else 20.0
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), window_s, 120.0 if quick else 600.0) as of:
        of.start("serve", theirs)
        of.start("work", everywhere)
        most = capacity(of, 2.0 if quick else 15.0)
        say(f"capacity: {most}")
        rate = SHARE * min(most["answered_per_second"] / CALLS_PER_DECISION, most["joined_per_second"])
        soaked = run(of, 60.0 * minutes, rate)
        book = settled(of)
        logged = of.logged()
    gap = logged - book.feedback - book.pending - book.unactivated - book.duplicate_decisions
    slopes: dict[str, Slope | None] = soaked["slopes"]
    soaked["slopes"] = {role: None if found is None else asdict(found) for role, found in slopes.items()}
    # Of a process that did not live long enough nothing is known.
    grown = {role: float("inf") if found is None else found.high for role, found in slopes.items()}
    return {
        "minutes": minutes,
        "capacity": most,
        **soaked,
        "decisions_in_the_log": logged,
        "book": {field.name: value for field, value in book.ListFields()},
        "goals": [
            *(
                goal(
                    f"{role}: upper end of the memory's slope, MiB/h", high, f"<= {MOST_GROWTH:g}", high <= MOST_GROWTH
                )
                for role, high in grown.items()
            ),
            goal("decisions that the book does not account for", gap, "0", gap == 0),
            goal("pending at the end", book.pending, "0", book.pending == 0),
            goal("wrong propensities", soaked["wrong_count"], "0", soaked["wrong_count"] == 0),
            goal("decisions audited", soaked["audited"], ">= 1", soaked["audited"] >= 1),
            goal(
                "restarts of the worker",
                soaked["worker_restarts"],
                f"{len(ENDS)}",
                soaked["worker_restarts"] == len(ENDS),
            ),
            goal("swaps of the policy", soaked["policy_swaps"], ">= 2", soaked["policy_swaps"] >= 2),
        ],
    }


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, help="how long; 30, with --quick 1")
    given = parser.parse_args()
    write(given, measure(given.minutes or (1.0 if given.quick else 30.0), given.quick))
