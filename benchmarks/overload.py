"""What a server does when three times as much is asked as it can answer.

Its capacity is measured first, in a closed loop. Then callers who do not wait for each other come at a low rate, at
three times the capacity, and at the low rate again, each with a deadline; one call of twenty reports an outcome. They
are of two kinds: the heedless send every call once, whatever the last ones were told; the others go by Leeway's own
client, which makes a refused call again within its deadline, and holds back calls that would be refused. Goodput is
what is answered within the deadline, a second. A call counts as admitted unless it was refused with
`RESOURCE_EXHAUSTED`. The server has recovered when a tenth of a second begins, after the load, from which on for half a
second every decision comes from the policy and half of them take at most twice what they took before it.

Both fronts are tried. The server has one core, who asks has another. Answers that come from the fallback are counted
beside the others.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._harness import goal, main
from benchmarks._open_load import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    HELD_BACK,
    LOST,
    OK,
    RESET,
    RESOURCE_EXHAUSTED,
    UNSENT,
    Call,
    OpenLoad,
    Phase,
)
from benchmarks._process_memory import resident_mib
from benchmarks._serving_forms import Form, cores, leeway, running
from benchmarks._serving_load import Load, burst, cpu_seconds
from benchmarks._serving_workload import Shape
from engine.api.leeway.v1.service_pb2 import DecideResponse, ReportRequest
from engine.records import FALLBACK_REASON_NONE, new_id

FRONTS = ("grpcio", "lean")
HEEDING = "leeway_client"
CALLERS = ("heedless", HEEDING)
DECIDE, REPORT = "/leeway.v1.Leeway/Decide", "/leeway.v1.Leeway/Report"
SHAPE = Shape()
TIMES = 3.0
CALM = 0.3
DEADLINE_S = 0.25
REPORTS = 20  # one call of so many
#: In flight when the capacity is measured.
CONCURRENCY = (8, 64)
TICK_S, STEADY_TICKS = 0.1, 5
NAMES = {
    OK: "ok",
    CANCELLED: "cancelled",
    DEADLINE_EXCEEDED: "deadline_exceeded",
    RESOURCE_EXHAUSTED: "refused",
    UNSENT: "unsent",
    HELD_BACK: "held_back",
    RESET: "reset",
    LOST: "lost",
}


class Requests:
    """The n-th call: mostly a decision, now and then an outcome."""

    def __init__(self) -> None:
        self._decisions = [request.SerializeToString() for request in SHAPE.packed()]
        self._outcome = ReportRequest(decision_point=SHAPE.name, value=1.0).SerializeToString()

    def __call__(self, number: int) -> tuple[str, bytes]:
        if number % REPORTS:
            return DECIDE, self._decisions[number % len(self._decisions)]
        return REPORT, self._outcome + ReportRequest(decision_id=new_id()).SerializeToString()


def capacity(form: Form, repeats: int, seconds: float) -> tuple[float, float]:
    """Return the most decisions a second that were answered in a closed loop, the median of some runs, and their cost.

    The cost is the server's CPU time for one, in microseconds.
    """
    load = Load(form.port, DECIDE, [request.SerializeToString() for request in SHAPE.packed()])
    found = []
    for concurrency in CONCURRENCY:
        asked = replace(load, window=concurrency // load.connections)
        runs = [burst(asked, form.process.pid, seconds).figures() for _ in range(repeats)]
        found.append(tuple(statistics.median(run[name] for run in runs) for name in ("per_second", "cpu_us")))
    per_second, cost_us = max(found)
    return per_second, cost_us


def _whole(call: Call) -> bool:
    """Whether an answer comes from the policy; an answer whose propensity is not its vector's is none."""
    answer = DecideResponse.FromString(call.answer)
    if answer.propensity != answer.probabilities[answer.action_index]:
        raise RuntimeError(f"a propensity is wrong: {answer}")
    return answer.fallback == FALLBACK_REASON_NONE


def recovery(calls: Sequence[Call], end_s: float, calm_s: float) -> float | None:
    """Return after how many seconds the server was as before; ``None``: never.

    Parameters
    ----------
    calls
        Decisions that were due after the load's end.
    end_s
        When the load ended.
    calm_s
        Median time of a decision before it.
    """
    ticks: dict[int, list[Call]] = {}
    for call in calls:
        ticks.setdefault(int((call.due - end_s) / TICK_S), []).append(call)
    good = [
        bool(found := ticks.get(tick, []))
        and all(call.status == OK and _whole(call) for call in found)
        and statistics.median(call.seconds for call in found) <= 2.0 * calm_s
        for tick in range(max(ticks, default=-1) + 1)
    ]
    for tick in range(len(good) - STEADY_TICKS + 1):
        if all(good[tick : tick + STEADY_TICKS]):
            return round(tick * TICK_S, 3)
    return None


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else float("nan")


def trial(folder: Path, front: str, quick: bool) -> dict[str, Any]:
    """Overload one server, by callers of each kind."""
    forms = {"leeway": leeway(folder / "leeway", {SHAPE.name: ("linear", SHAPE)}, durability="disk", front=front)}
    with running(forms):
        form = forms["leeway"]
        most, cost_us = capacity(form, 3, 1.0 if quick else 3.0)
        return {
            "capacity_per_second": round(most, 1),
            "cpu_us_per_decision": round(cost_us, 1),
            **{callers: overload(form, most, quick, heeds=callers == HEEDING) for callers in CALLERS},
        }


def overload(form: Form, most: float, quick: bool, *, heeds: bool) -> dict[str, Any]:
    """Ask three times as much as a server can answer, and a little before and after it.

    Parameters
    ----------
    form
        The server.
    most
        How many calls a second it can answer.
    quick
        Whether the phases are short.
    heeds
        Whether callers go by Leeway's client.
    """
    calls: list[Call] = []
    calm_s, loaded_s, after_s = (1.5, 5.0, 3.0) if quick else (4.0, 15.0, 5.0)
    before = resident_mib(form.process.pid)
    load = OpenLoad(form.port, Requests(), DEADLINE_S, heeds=heeds, heard=calls.append)
    began = load.play(Phase(CALM * most, calm_s))
    spent, of_server, sent = time.process_time(), cpu_seconds(form.process.pid), load.sent
    end = load.play(Phase(TIMES * most, loaded_s))
    busy, of_server = time.process_time() - spent, cpu_seconds(form.process.pid) - of_server
    sent = load.sent - sent
    load.play(Phase(CALM * most, after_s))
    load.settle()
    load.close()
    decisions = [call for call in calls if call.path == DECIDE]
    calm = statistics.median(call.seconds for call in decisions if call.due < began and call.status == OK)
    loaded = [call for call in calls if began <= call.due < end]
    answered = [call for call in loaded if call.status == OK and call.seconds <= DEADLINE_S]
    admitted = [call.seconds for call in loaded if call.status not in (RESOURCE_EXHAUSTED, UNSENT, HELD_BACK)]
    whole = sum(_whole(call) for call in answered if call.path == DECIDE)
    refused = [call.seconds for call in loaded if call.status == RESOURCE_EXHAUSTED]
    per_capacity = 1.0 / loaded_s / most
    return {
        "asked_over_capacity": round(len(loaded) * per_capacity, 3),
        "sent_over_capacity": round(sent * per_capacity, 3),
        "generator_cpu_share": round(busy / loaded_s, 3),
        "server_cpu_share": round(of_server / loaded_s, 3),
        "server_cpu_us_per_attempt": round(1e6 * of_server / sent, 1),
        "goodput_over_capacity": round(len(answered) * per_capacity, 3),
        "from_the_policy_over_capacity": round(whole * per_capacity, 3),
        "goodput_by_second": [
            round(sum(int(call.due - began) == second for call in answered) / most, 2)
            for second in range(int(loaded_s))
        ],
        "admitted_p50_ms": round(1e3 * statistics.median(admitted), 2),
        "admitted_p99_ms": round(1e3 * _p99(admitted), 2),
        "refused_p50_ms": round(1e3 * statistics.median(refused), 2) if refused else None,
        "refused_p99_ms": round(1e3 * _p99(refused), 2) if len(refused) > 1 else None,
        "ends": _ends(loaded),
        "ends_of_reports": _ends([call for call in loaded if call.path == REPORT]),
        "calm_p50_ms": round(1e3 * calm, 3),
        "recovery_s": recovery([call for call in decisions if call.due >= end], end, calm),
        "resident_mib": [before, resident_mib(form.process.pid)],
    }


def _ends(calls: Sequence[Call]) -> dict[str, int]:
    return dict(Counter(NAMES.get(call.status, str(call.status)) for call in calls))


def measure(quick: bool) -> dict[str, Any]:
    _, ours = cores()
    os.sched_setaffinity(0, ours)
    gc.disable()  # all calls are kept: to look through them would hold up those that are due
    trials: dict[str, list[dict[str, Any]]] = {front: [] for front in FRONTS}
    for _ in range(1 if quick else 3):
        for front, its in trials.items():
            with tempfile.TemporaryDirectory() as folder:
                its.append(trial(Path(folder), front, quick))
    return {
        "deadline_ms": 1e3 * DEADLINE_S,
        "trials": trials,
        "goals": [one for front, its in trials.items() for one in goals(front, [each[HEEDING] for each in its])],
    }


def goals(front: str, trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is asked of one front, with callers that go by Leeway's client."""

    def middle(name: str) -> float:
        # A server that did not recover at all took for ever.
        return statistics.median(float("inf") if one[name] is None else one[name] for one in trials)

    asked, goodput, p99 = middle("asked_over_capacity"), middle("goodput_over_capacity"), middle("admitted_p99_ms")
    again, lost = middle("recovery_s"), max(one["ends"].get("lost", 0) + one["ends"].get("reset", 0) for one in trials)
    deadline_ms = 1e3 * DEADLINE_S
    return [
        goal(f"{front}: calls that were due, per capacity", asked, ">= 2.9", asked >= 2.9),
        goal(f"{front}: goodput per capacity", goodput, ">= 0.9", goodput >= 0.9),
        goal(f"{front}: p99 of what was admitted, ms", p99, f"<= {deadline_ms:g}", p99 <= deadline_ms),
        goal(f"{front}: recovery after the load, s", again, "<= 2", again <= 2.0),
        goal(f"{front}: calls without an end", lost, "0", lost == 0),
    ]


if __name__ == "__main__":
    main(__doc__, measure)
