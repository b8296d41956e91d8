"""River's detectors on the streams of `benchmarks.drift`; runs in an environment of its own.

`rows` tunes each detector's threshold, on streams of its own, to a share of false alarms, and prints its delays. The
slow detectors of zeros and ones have as many streams to be tuned on as to be tested on, the others `TUNING`. `speed`
prints nanoseconds per update of ADWIN at several lengths of the stream. A detector of numbers gets categories
one against the rest: one instance for each category, and an alarm when any of them raises one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from river import drift

from benchmarks._drift_streams import CHANGE, ROWS, TESTED_ON, TUNED_ON, TUNING

Make = Callable[[float], Any]
#: Detector, least and greatest threshold, whether a greater one is more sensitive.
NUMERIC: dict[str, tuple[Make, float, float, bool]] = {
    "ADWIN": (lambda t: drift.ADWIN(delta=t), 1e-6, 0.99, True),
    "ADWIN clock 1": (lambda t: drift.ADWIN(delta=t, clock=1), 1e-6, 0.99, True),
    "PageHinkley": (lambda t: drift.PageHinkley(threshold=t), 1.0, 300.0, False),
}
BINARY: dict[str, tuple[Make, float, float, bool]] = {
    "DDM": (lambda t: drift.binary.DDM(drift_threshold=t), 1.0, 12.0, False),
    "HDDM_A": (lambda t: drift.binary.HDDMA(drift_confidence=t), 1e-7, 0.3, True),
    "HDDM_W": (lambda t: drift.binary.HDDMW(drift_confidence=t), 1e-9, 0.1, True),
    "KSWIN": (lambda t: drift.KSWIN(alpha=t, seed=1), 1e-5, 0.05, True),
}
SLOW = {"KSWIN"}


class Rest:
    """One detector for each category."""

    def __init__(self, make: Callable[[], Any], categories: int) -> None:
        self.each = [make() for _ in range(categories)] if categories > 2 else [make()]
        self.values = [[int(x == o) for o in range(categories)] for x in range(categories)]
        if categories == 2:
            self.values = [[0], [1]]

    def update(self, x: int) -> bool:
        alarm = False
        for detector, value in zip(self.each, self.values[x], strict=True):
            detector.update(value)
            alarm |= detector.drift_detected
        return alarm


def alarms(make: Callable[[], Any], categories: int, stream: list[int], change: int) -> tuple[bool, float]:
    """Return whether there was an alarm before the change, and the delay of the first one after it."""
    detector, false = Rest(make, categories), False
    for i, x in enumerate(stream):
        if detector.update(x):
            if i >= change:
                return false, i - change + 1
            false = True
            if len(stream) == change:
                break
    return false, math.inf


def tuned(make: Make, low: float, high: float, rising: bool, k: int, streams: list[list[int]], target: float) -> float:
    """Return the threshold whose share of false alarms is nearest to the target, the more sensitive of two."""

    def level(x: float) -> float:
        return sum(alarms(lambda: make(math.exp(x)), k, stream, CHANGE)[0] for stream in streams) / len(streams)

    quiet, sensitive = (math.log(low), math.log(high)) if rising else (math.log(high), math.log(low))
    at_quiet, at_sensitive = 0.0, 1.0
    for _ in range(5 if len(streams) < 50 else 8):
        middle = (quiet + sensitive) / 2
        found = level(middle)
        if found > target:
            sensitive, at_sensitive = middle, found
        else:
            quiet, at_quiet = middle, found
    return math.exp(sensitive if at_sensitive - target <= target - at_quiet else quiet)


def rows(wanted: dict[str, float], seeds: int, slow_seeds: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    # Rows with the same distribution before the change have the same streams to be tuned on.
    thresholds: dict[Any, float] = {}
    for name, target in wanted.items():
        row, k = ROWS[name], len(ROWS[name].before)
        tuning, test = row.draw(TUNING, TUNED_ON, CHANGE).tolist(), row.draw(seeds, TESTED_ON).tolist()
        result[name] = {}
        for detector, (make, low, high, rising) in (NUMERIC | (BINARY if k == 2 else {})).items():
            count = slow_seeds if detector in SLOW else seeds
            if not count:
                continue
            kept = tuning if detector in NUMERIC else tuning[:count]
            key = (detector, row.before, target)
            if key not in thresholds:
                thresholds[key] = tuned(make, low, high, rising, k, kept, target)
            threshold = thresholds[key]
            found = [alarms(partial(make, threshold), k, stream, CHANGE) for stream in test[:count]]
            result[name][detector if k == 2 else f"{detector}, one against the rest"] = {
                "threshold": threshold,
                "false": sum(false for false, _ in found) / count,
                "delays": [delay for _, delay in found],
            }
        print(name, "done", file=sys.stderr, flush=True)
    return result


def speed(lengths: list[int]) -> dict[str, float]:
    detector, rng, result = drift.ADWIN(), np.random.default_rng(0), {}
    seen = 0
    for length in lengths:
        for x in rng.integers(0, 2, length - seen).tolist():
            detector.update(x)
        chunk = rng.integers(0, 2, min(length, 100_000)).tolist()
        runs = []
        for _ in range(max(1, 3_000 // len(chunk))):
            copy = drift.ADWIN() if length <= 1_000 else detector
            started = time.process_time()
            for x in chunk:
                copy.update(x)
            runs.append((time.process_time() - started) / len(chunk) * 1e9)
        seen = length + (len(chunk) if length > 1_000 else 0)
        result[str(length)] = sorted(runs)[len(runs) // 2]
    return result


if __name__ == "__main__":
    request = json.loads(sys.stdin.read())
    print(json.dumps(speed(request["lengths"]) if "lengths" in request else rows(**request)))
