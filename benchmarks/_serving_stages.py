"""What it costs to time the stages of a decision."""

from __future__ import annotations

import statistics
import time
from time import perf_counter_ns

from engine.serving.stages import StageTimes


def timing_cost_us(calls: int = 20_000) -> float:
    """Return CPU microseconds that timing adds to a decision: its readings of the clock, and its counts."""
    times = StageTimes()
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(calls):
            # As ``decide`` and the recording of its decision do.
            times.add(
                0, (perf_counter_ns(), perf_counter_ns(), perf_counter_ns(), perf_counter_ns(), perf_counter_ns())
            )
            times.add(4, (perf_counter_ns(), perf_counter_ns(), perf_counter_ns()))
        found.append((time.process_time() - began) / calls)
    return 1e6 * statistics.median(found)
