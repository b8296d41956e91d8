"""What the reward join costs over Kafka's client alone, beside the join of another library; its memory and restarts.

Everything runs on one broker, started for it: the broker on one core, each measured process on another, all on the same
messages. These lie in the topics before the measurement; a transaction that was held back lets all of them be seen at
once. A decision and its outcome are two events; a run ends when the last output is committed, and its output is
checked: each decision has one feedback, with its reward. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks._harness import goal
from benchmarks._streaming_bench import BATCH, PARTITIONS, Bench, Figures
from benchmarks._streaming_cluster import started
from benchmarks._streaming_peer import REQUIREMENT
from benchmarks._streaming_peer import python as python_of_peer
from benchmarks._streaming_workload import Workload

BARE = "bare kafka-python"
JOINER = "joiner on kafka-python"
FAST = "joiner on librdkafka"
PEER = REQUIREMENT.replace("==", " ")


def measure(quick: bool) -> dict[str, Any]:
    work = Workload(20_000, 2_000) if quick else Workload(100_000, 10_000)
    rounds, repeats = (1, 1) if quick else (5, 3)
    sizes = [1_000, 10_000] if quick else [10_000, 100_000, 1_000_000]
    peer, missing = python_of_peer()
    with tempfile.TemporaryDirectory() as folder, started() as cluster:
        bench = Bench(cluster, Path(folder))
        forms: dict[str, Callable[[], Figures]] = {
            BARE: lambda: bench.bare(work),
            JOINER: lambda: bench.joiner(work, "kafka-python"),
        }
        if find_spec("confluent_kafka") is not None:
            forms[FAST] = lambda: bench.joiner(work, "librdkafka")
        if peer is not None:
            forms[PEER] = lambda: bench.quix(work, peer)
        runs: dict[str, list[Figures]] = {name: [] for name in forms}
        for number in range(rounds):
            for name, measured in forms.items():
                _tell(f"round {number + 1} of {rounds}: {name}")
                runs[name].append(measured())
        pending = {0: bench.pending(0)}
        for size in sizes:
            _tell(f"{size} open windows")
            pending[size] = bench.pending(size)
        cluster.use_every_core()
        together: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(repeats):
            for number, found in together.items():
                _tell(f"{number} partitions, {number} instances")
                found.append(bench.together(work, number, number)["per_second"])
    goals = [_goal(runs, JOINER, BARE, 0.5), _goal(runs, JOINER, PEER, 1.5), _goal(runs, FAST, JOINER, 2.0)]
    return {
        "pairs": work.pairs,
        "rounds": rounds,
        "batch": BATCH,
        "partitions": PARTITIONS,
        "not_measured": [missing] if missing else [],
        "medians": {name: _medians(found) for name, found in runs.items()},
        "ratios": {
            f"{one} / {other}": ratio
            for one, other in ((JOINER, BARE), (JOINER, PEER), (FAST, JOINER), (FAST, BARE), (FAST, PEER))
            if (ratio := _ratios(runs, one, other))
        },
        "open_windows": _open_windows(pending),
        "events_per_second_by_partitions_and_instances": {
            str(number): round(statistics.median(found)) for number, found in together.items()
        },
        "goals": goals,
    }


def profile(path: Path) -> None:
    """Write where the time of the joiner on kafka-python goes."""
    with tempfile.TemporaryDirectory() as folder, started() as cluster:
        figures = Bench(cluster, Path(folder)).joiner(Workload(50_000, 5_000), "kafka-python", str(path.absolute()))
    print(f"{figures['cpu_us_per_pair']:.0f} us of CPU for each pair under the profiler, all threads; see {path}")


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _medians(found: list[Figures]) -> Figures:
    return {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}


def _ratios(runs: dict[str, list[Figures]], one: str, other: str) -> Figures:
    """Compare two forms round by round: what else the machine did is then much the same for both."""
    if one not in runs or other not in runs:
        return {}
    pairs = list(zip(runs[one], runs[other], strict=True))
    return {
        "events_per_second": round(statistics.median(a["per_second"] / b["per_second"] for a, b in pairs), 3),
        "cpu_per_pair": round(statistics.median(a["cpu_us_per_pair"] / b["cpu_us_per_pair"] for a, b in pairs), 3),
    }


def _goal(runs: dict[str, list[Figures]], one: str, other: str, bound: float) -> dict[str, Any]:
    value = _ratios(runs, one, other).get("events_per_second", 0.0)  # what was not measured does not hold
    return goal(f"events/s: {one} over {other}", value, f">= {bound}", value >= bound)


def _open_windows(pending: dict[int, dict[str, Figures]]) -> dict[str, Any]:
    """Return bytes and seconds of an open window, over those of a process that has none, and how they grow."""
    result: dict[str, Any] = {}
    none = pending[0]
    sizes = sorted(pending.keys() - {0})
    for way in none:
        found = {size: _each(pending[size][way], none[way], size) for size in sizes}
        first, last = found[sizes[0]], found[sizes[-1]]
        result[way] = {
            **{str(size): figures for size, figures in found.items()},
            f"growth from {sizes[0]} to {sizes[-1]}": {
                key: round(last[key] / first[key], 3) if first[key] > 0 else None for key in first
            },
        }
    return result


def _each(figures: Figures, none: Figures, size: int) -> Figures:
    more = {key: figures[key] - none[key] for key in figures}
    return {
        "bytes_each": round(more["bytes"] / size, 1),
        "seconds_per_million": round(1e6 * more["seconds"] / size, 2),
        "cpu_seconds_per_million": round(1e6 * more["cpu_seconds"] / size, 2),
    }


if __name__ == "__main__":
    # An end by a signal is to end the broker too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--profile", type=Path)
    given, others = parser.parse_known_args()
    if given.profile:
        profile(given.profile)
    else:
        sys.argv[1:] = others
        _harness.main(__doc__, measure)
