"""R-BOCPD beside river's detectors and BOCPD: delay at equal false alarms, false alarms in the long run, and speed.

Ours has one budget for all rows, `Budget(0.05, 1_000)`. On each row each peer's threshold is tuned, on streams of its
own, until its share of streams with a false alarm before the change is ours. Delay is counted from the change to the
first alarm after it; a stream without one counts as infinite. Goals name the least median of all peers with all seeds.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _peer_environment
from benchmarks._drift_streams import ABRUPT, CHANGE, GRADUAL, TESTED_ON, TUNED_ON, TUNING, Row, binary
from benchmarks._harness import goal, main
from monitoring.bocpd import BOCPD
from monitoring.budget import Budget
from monitoring.detector import Change, IntArray
from monitoring.rbocpd import RBOCPD, RBOCPDBank
from monitoring.rbocpd.scan import Candidates
from monitoring.weights import AnytimeWeight, InverseLengthWeight

RIVER = "river==0.26.1"
BUDGET = Budget(rate=0.05, horizon=CHANGE)
LONG = Budget(rate=0.1, horizon=10**6)
OURS = "R-BOCPD, default"
LENGTHS = [10**2, 10**3, 10**4, 10**5, 10**6]
#: What the monitors of a thousand streams must keep up with: feedbacks a second, and streams that each one updates.
FEEDBACKS_PER_SECOND, STREAMS_PER_FEEDBACK = 30_000, 30


def river(request: dict[str, Any]) -> dict[str, Any] | str:
    """Return the answer of the program of river's detectors, or why there is none."""
    interpreter, why = _peer_environment.python(RIVER)
    if interpreter is None:
        return why
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [interpreter, "-m", "benchmarks.peers.river_drift"],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def judged(changes: list[Change]) -> tuple[bool, float]:
    """Return whether there was an alarm before the change, and the delay of the first one after it."""
    after = [change.detected - CHANGE + 1 for change in changes if change.detected >= CHANGE]
    return any(change.detected < CHANGE for change in changes), min(after, default=math.inf)


def figures(found: list[tuple[bool, float]], **more: Any) -> dict[str, Any]:
    delays = np.array([delay for _, delay in found])
    # `lower`: what half of the streams have reached, without interpolating towards infinity.
    median, late = (float(np.quantile(delays, q, method="lower")) for q in (0.5, 0.95))
    return {
        "false_alarms": round(float(np.mean([false for false, _ in found])), 4),
        "median": median if math.isfinite(median) else None,
        "p95": late if math.isfinite(late) else None,
        "missed": round(float(np.mean(~np.isfinite(delays))), 4),
        "seeds": len(found),
        **more,
    }


@lru_cache
def hazard_of(before: tuple[float, ...], target: float) -> float:
    """Tune the hazard of BOCPD as the peers are tuned."""
    k, tuning = len(before), Row("", before, before).draw(TUNING // 2, TUNED_ON, CHANGE)

    def level(x: float) -> float:
        return float(np.mean([bool(BOCPD(math.exp(x), k).update_many(xs)) for xs in tuning]))

    quiet, sensitive = math.log(1e-7), math.log(0.05)
    at_quiet, at_sensitive = 0.0, 1.0
    for _ in range(7):
        middle = (quiet + sensitive) / 2
        if (found := level(middle)) > target:
            sensitive, at_sensitive = middle, found
        else:
            quiet, at_quiet = middle, found
    return math.exp(sensitive if at_sensitive - target <= target - at_quiet else quiet)


def bocpd(row: Row, seeds: int, target: float) -> dict[str, Any]:
    hazard, k = hazard_of(row.before, target), len(row.before)
    return figures([judged(BOCPD(hazard, k).update_many(xs)) for xs in row.draw(seeds, TESTED_ON)], threshold=hazard)


def table(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Delays at equal false alarms."""
    seeds, slow_seeds = (40, 0) if quick else (200, 10)
    rows = [*ABRUPT, *GRADUAL]
    result: dict[str, Any] = {}
    targets: dict[str, float] = {}
    for row in rows:
        k = len(row.before)
        forms = {
            OURS: RBOCPD(BUDGET, k),
            "R-BOCPD, exact": RBOCPD(BUDGET, k, candidates="all"),
            "R-BOCPD, 16 an octave": RBOCPD(BUDGET, k, candidates="octaves"),
            "R-BOCPD, anytime .05": RBOCPD(AnytimeWeight(0.05), k),
            "R-BOCPD, 1/n of the papers": RBOCPD(InverseLengthWeight(), k),
        }
        streams, tuning = row.draw(seeds, TESTED_ON), row.draw(TUNING, TUNED_ON, CHANGE)
        result[row.name] = {}
        for name, empty in forms.items():
            if quick and name == "R-BOCPD, exact":
                continue
            blank = empty.save()
            found = [judged(RBOCPD.load(blank).update_many(xs)) for xs in streams]
            result[row.name][name] = figures(found)
        blank = forms[OURS].save()
        targets[row.name] = float(np.mean([bool(RBOCPD.load(blank).update_many(xs)) for xs in tuning]))
        result[row.name]["tuned to"] = targets[row.name]
        result[row.name]["BOCPD"] = bocpd(row, seeds, targets[row.name])
    answer = river({"wanted": targets, "seeds": seeds, "slow_seeds": slow_seeds})
    if isinstance(answer, str):
        return {"rows": result, "not_measured": answer}, [
            goal(f"median delay, {row.name}", math.nan, "river is not there", False) for row in ABRUPT
        ]
    for row_name, detectors in answer.items():
        for name, found in detectors.items():
            pairs = [(False, delay) for delay in found["delays"]]
            entry = figures(pairs, threshold=found["threshold"])
            result[row_name][name] = {**entry, "false_alarms": found["false"]}
    goals = []
    for row in ABRUPT:
        peers = {
            name: entry["median"]
            for name, entry in result[row.name].items()
            if isinstance(entry, dict)
            and not name.startswith("R-BOCPD")
            and entry["seeds"] == seeds
            and entry["median"]
        }
        best = min(peers, key=lambda name: peers[name])
        ours = result[row.name][OURS]["median"] or math.inf
        ratio = round(ours / peers[best], 3)
        bound = f"<= 1.15 of the least, {best} with {peers[best]:g}"
        goals.append(goal(f"median delay, {row.name}", ratio, bound, ratio <= 1.15))
    return {"rows": result}, goals


def stationary(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """False alarms on a million steps and within the horizon."""
    result: dict[str, Any] = {}
    goals = []
    rng = np.random.default_rng(11)
    rates = [0.5, 0.1, 0.9, 0.02]
    for k, streams in ((2, 8 if quick else 40), (10, 2 if quick else 10)):
        draws = [
            rng.integers(0, k, 10**6) if k > 2 else (rng.random(10**6) < rates[i % 4]).astype(np.int64)
            for i in range(streams)
        ]
        alarmed = sum(bool(RBOCPD(LONG, k).update_many(xs)) for xs in draws)
        by_default = sum(len(RBOCPD(categories=k).update_many(xs)) for xs in draws[: max(1, streams // 4)])
        name = f"streams alarmed on 10^6 stationary steps, K={k}"
        result[name] = {"streams": streams, "alarmed": alarmed}
        result[f"alarms of the default budget each 10^6 steps, K={k}"] = by_default / max(1, streams // 4)
        allowed = LONG.rate * streams + 2 * math.sqrt(streams * LONG.rate * (1 - LONG.rate))
        bound = f"<= {allowed:.1f} of {streams}: {LONG.rate:.0%} and two standard errors"
        goals.append(goal(name, alarmed, bound, alarmed <= allowed))
    seeds = 400 if quick else 2_000
    for p in (0.5, 0.1, 0.01):
        row = binary(p, p)
        found = sum(bool(RBOCPD(BUDGET).update_many(xs)) for xs in row.draw(seeds, 5 * 10**6, CHANGE))
        share = found / seeds
        slack = 2 * math.sqrt(BUDGET.rate * (1 - BUDGET.rate) / seeds)
        result[f"share alarmed by {CHANGE}, p={p}"] = share
        bound = f"<= 0.05 (+ {slack:.3f}, two standard errors)"
        goals.append(
            goal(f"share of stationary streams alarmed by {CHANGE}, p={p}", share, bound, share <= 0.05 + slack)
        )
    return result, goals


def timed(bank: RBOCPDBank, k: int, length: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return CPU nanoseconds per update of streams that have seen ``length``, and their mean run length."""
    streams, chunk = len(bank), min(length, 100_000)
    for begin in range(0, length, 100_000):
        step = min(100_000, length - begin)
        bank.update_many(np.repeat(np.arange(streams), step), rng.integers(0, k, streams * step))
    order: IntArray = np.repeat(np.arange(streams), chunk)
    xs = rng.integers(0, k, streams * chunk)
    run = float(np.mean(bank.seen - bank.run_starts))
    started = time.process_time()
    bank.update_many(order, xs)
    return (time.process_time() - started) / len(xs) * 1e9, run


def speed(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Time and memory by run length; many streams at once; river's ADWIN beside it, taking turns."""
    repeats = 2 if quick else 5
    lengths = LENGTHS[:4] if quick else LENGTHS
    forms: dict[str, tuple[int, Candidates]] = {
        "Bernoulli, hull": (2, "hull"),
        "Bernoulli, 16 an octave": (2, "octaves"),
        "K=10, 16 an octave": (10, "octaves"),
    }
    times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in lengths} for name in forms}
    more: dict[str, dict[int, dict[str, float]]] = {name: {} for name in forms}
    peer: dict[str, list[float]] = {}
    not_measured = ""
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        for name, (k, candidates) in forms.items():
            for n in lengths:
                # The budget is that of the length, so that no false alarm shortens the run.
                budget = Budget(0.01, max(10_000, n))
                bank = RBOCPDBank(max(1, 100_000 // n), budget, k, candidates=candidates)
                taken, run = timed(bank, k, n, rng)
                times[name][n].append(taken)
                more[name][n] = {
                    "bytes_per_stream": bank.nbytes / len(bank),
                    "forecasters": float(np.mean([len(bank.starts(s)) for s in range(min(50, len(bank)))])),
                    "run_length": run,
                }
        answer = river({"lengths": lengths})
        if isinstance(answer, str):
            not_measured = answer
        else:
            for length, nanoseconds in answer.items():
                peer.setdefault(length, []).append(nanoseconds)
    medians = {name: {n: round(float(np.median(runs)), 1) for n, runs in by.items()} for name, by in times.items()}
    result: dict[str, Any] = {
        "ns_per_update": {**medians, "river ADWIN": {n: round(float(np.median(runs)), 1) for n, runs in peer.items()}},
        "at": more,
        **({"not_measured": not_measured} if not_measured else {}),
    }
    goals = []
    for name, bound in (("Bernoulli, hull", 150.0), ("K=10, 16 an octave", 2_500.0)):
        worst, by = max(medians[name].values()), medians[name]
        goals.append(goal(f"ns per update, {name}, worst length", worst, f"<= {bound:g}", worst <= bound))
        growth = round(by[lengths[-1]] / by[1_000], 3)
        goals.append(goal(f"time at {lengths[-1]:,} over time at 1,000, {name}", growth, "<= 1.5", growth <= 1.5))
        space = more[name][lengths[-1]]["bytes_per_stream"] / more[name][1_000]["bytes_per_stream"]
        goals.append(goal(f"bytes at {lengths[-1]:,} over bytes at 1,000, {name}", space, "<= 4", space <= 4))
    found, more_goals = many(repeats)
    return result | found, goals + more_goals


def many(repeats: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A thousand streams; each feedback updates thirty of them, as many as it has features, actions and residuals."""
    result: dict[str, Any] = {}
    goals = []
    need = FEEDBACKS_PER_SECOND * STREAMS_PER_FEEDBACK
    for k in (2, 10):
        rates = []
        for repeat in range(repeats):
            rng = np.random.default_rng(repeat)
            bank = RBOCPDBank(1_000, categories=k)
            for _ in range(5):
                feedbacks = 6_000
                streams = rng.integers(0, 1_000, (feedbacks, STREAMS_PER_FEEDBACK)).ravel()
                xs = rng.integers(0, k, streams.shape)
                started = time.process_time()
                bank.update_many(streams, xs)
                rates.append(len(xs) / (time.process_time() - started))
        rate = float(np.median(rates))
        result[f"1,000 streams, K={k}"] = {
            "updates_per_second": round(rate),
            "feedbacks_per_second": round(rate / STREAMS_PER_FEEDBACK),
            "bytes_per_stream": bank.nbytes / 1_000,
        }
        if k == 2:
            bound = f">= {FEEDBACKS_PER_SECOND}, each updating {STREAMS_PER_FEEDBACK} of 1,000 streams"
            goals.append(
                goal("feedbacks/s of one core, Bernoulli", round(rate / STREAMS_PER_FEEDBACK), bound, rate >= need)
            )
    return result, goals


def measure(quick: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"budget": {"rate": BUDGET.rate, "horizon": BUDGET.horizon}}
    goals = []
    for name, part in (("speed", speed), ("stationary", stationary), ("delay", table)):
        result[name], more = part(quick)
        goals += more
    return {**result, "goals": goals}


if __name__ == "__main__":
    main(__doc__, measure)
