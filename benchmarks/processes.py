"""What a second serving process gives, and what memory it takes.

One process with one core and two with two answer the same decisions in turns, with the records of each call in the log
or in a queue, and as many callers to each process. The asker is light, and needs CPU itself. With three cores or more
it has one of its own. With two it shares those of the servers: the one of one process, both of two, so that it is in
the way of each alike. Calls per second are compared, and where the servers worked in less than 0.6 of their possible
time no goal holds: other load was measured, not the servers. Besides it is told what one process answers that may use
all the cores (its log writes on another one meanwhile), and what two answer that are moved between them.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks._harness import goal, main
from benchmarks._serving_load import Load, burst
from benchmarks._serving_workload import Shape
from benchmarks.recommend import NAME, SETTINGS, policy_of
from engine.recommender.store import RecommenderStore
from engine.store import PolicyStore
from streaming.catalogues import catalogue_path, save_catalogue

DECIDE = "/leeway.v1.Leeway/Decide"
SHAPE = Shape()
POINT, TREES = SHAPE.name, "trees"
ITEMS = 20_000
#: To each process: with fewer in flight, fewer records share a write.
CONNECTIONS = 16
START_S = 120.0
#: Less of their possible time at work, and the servers were not what was measured.
BUSY = 0.6

#: The goals are of this durability, as those of ``benchmarks.serving`` are.
ASKED = "memory"
ONE, ALL = "1, one core", "1, all cores"
TWO, MOVED = "2, a core each", "2, moved between cores"

Figures = dict[str, float]


@dataclass
class Serving:
    """A ``leeway serve`` that runs: its supervisor, its processes, and its port."""

    supervisor: int
    pids: tuple[int, ...]
    port: int

    def keep_to(self, cores: Sequence[set[int]]) -> None:
        """Give the processes sets of cores, in turn."""
        for pid, mine in zip(self.pids, itertools.cycle(cores), strict=False):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), mine)

    def memory(self) -> Figures:
        """Return the resident and the proportional size of a process, in MiB, the mean of all."""
        sizes: dict[str, list[float]] = {"Rss": [], "Pss": [], "Private_Dirty": []}
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, size = line.partition(":")
                if name in sizes:
                    sizes[name].append(int(size.split()[0]) / 1_024)
        return {f"{name.lower()}_mib": round(statistics.mean(found), 1) for name, found in sizes.items()}


@contextmanager
def serving(
    folder: Path, processes: int, cores: set[int], durability: str = "disk", *, lists: bool = False
) -> Iterator[Serving]:
    """Run ``leeway serve`` with trained policies on some cores."""
    folder.mkdir()
    config: dict[str, Any] = {
        "version": 1,
        "serving": {"port": 0, "processes": processes, "durability": durability, "drain": "0ms"},
        "metrics": {"serving_port": 0, "pipeline_port": 0},
        "log": {"fsync": False},
    }
    data = folder / "leeway-data"
    if lists:
        config["recommenders"] = {NAME: {**SETTINGS, "index": {"kind": "exact"}}}
        policy = policy_of("exact", ITEMS)
        assert policy.catalogue is not None
        save_catalogue(catalogue_path(data / "catalogues", NAME), policy.catalogue)
        RecommenderStore(data / "policies").publish(policy)
    else:
        config["decision_points"] = {name: SHAPE.point() for name in (POINT, TREES)}
        store = PolicyStore(data / "policies")
        store.publish(SHAPE.policy("linear", POINT))
        store.publish(SHAPE.policy("lightgbm", TREES))
    path = folder / "leeway.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))  # the order of the features is that of the columns
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.cli", "serve", "--config", str(path)], stderr=subprocess.DEVNULL
    )
    os.sched_setaffinity(process.pid, cores)
    try:
        said = _facts(data / "run" / "serve.json", process)
        numbers = range(1, processes + 1) if processes > 1 else ()
        pids = [int(_facts(data / "run" / f"serve-{number}.json", process)["pid"]) for number in numbers]
        yield Serving(process.pid, tuple(pids or [process.pid]), int(said["port"]))
    finally:
        process.terminate()
        process.wait()


def _facts(path: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    end = time.monotonic() + START_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("leeway serve does not start; try it by hand")
        time.sleep(0.05)
    return dict(json.loads(path.read_text()))


def _load(form: Serving, point: str) -> Load:
    messages = [request.SerializeToString() for request in SHAPE.packed(point)]
    return Load(form.port, DECIDE, messages, CONNECTIONS * len(form.pids))


def ask(form: Serving, point: str, seconds: float, cores: int, asker: set[int]) -> Figures:
    """Return the figures of some seconds; ``cores``: how many the servers may use; ``asker``: its cores."""
    others = [*form.pids[1:], *([form.supervisor] if form.supervisor not in form.pids else [])]
    os.sched_setaffinity(0, asker)
    began = time.process_time()
    measured = burst(_load(form, point), form.pids[0], seconds, *others)
    spent = time.process_time() - began
    figures = measured.figures()
    figures["asker_cpu_us"] = 1e6 * spent / (len(measured.latencies) * 1.1)  # a tenth was to get warm
    figures["busy"] = measured.cpu_seconds / (measured.seconds * cores)
    return figures


def compare(
    folder: Path, repeats: int, seconds: float, cores: list[int], asker: set[int]
) -> dict[str, dict[str, Figures]]:
    """Measure one process and two, in turns, for each durability and kind of policy; ``asker``: empty: it shares."""
    one, every = [{cores[0]}], [set(cores)]
    forms_and_cores = {ONE: ("1", one), ALL: ("1", every), TWO: ("2", [{core} for core in cores]), MOVED: ("2", every)}
    found: dict[str, dict[str, Figures]] = {}
    for durability in ("memory", "disk"):
        with ExitStack() as stack:
            forms = {
                str(processes): stack.enter_context(
                    serving(folder / f"{durability}-{processes}", processes, set(cores), durability)
                )
                for processes in (1, 2)
            }
            for point, kind in ((POINT, "linear"), (TREES, "lightgbm")):
                runs: dict[str, list[Figures]] = {name: [] for name in forms_and_cores}
                for _ in range(repeats):
                    for name, those in runs.items():
                        form, its = forms[forms_and_cores[name][0]], forms_and_cores[name][1]
                        form.keep_to(its)
                        used = set().union(*its)
                        those.append(ask(form, point, seconds, len(used), asker or used))
                found[f"{kind}, {durability}"] = {
                    name: {key: round(statistics.median(run[key] for run in those), 3) for key in those[0]}
                    for name, those in runs.items()
                }
    return found


def memory(folder: Path, cores: set[int]) -> dict[str, Any]:
    """Measure what processes take: those of decision points, one of them by trees, and those of a large catalogue."""
    arrays = {
        "linear": sum(array.nbytes for array in SHAPE.policy("linear", POINT).oracle.arrays().values()),
        "lightgbm": sum(array.nbytes for array in SHAPE.policy("lightgbm", TREES).oracle.arrays().values()),
        f"recommender of {ITEMS} items": sum(array.nbytes for array in policy_of("exact", ITEMS).arrays().values()),
    }
    found: dict[str, Any] = {"arrays_mib": {name: round(size / 2**20, 2) for name, size in arrays.items()}}
    for name, lists in (("linear and lightgbm", False), (f"recommender of {ITEMS} items", True)):
        with serving(folder / f"memory-{lists}", 2, cores, lists=lists) as form:
            found[name] = form.memory()
    return found


def measure(quick: bool) -> dict[str, Any]:
    repeats, seconds = (3, 1.0) if quick else (7, 2.0)
    every = sorted(os.sched_getaffinity(0))
    own = len(every) > 2
    cores = every[1:3] if own else every
    with tempfile.TemporaryDirectory() as folder:
        compared = compare(Path(folder), repeats, seconds, cores, {every[0]} if own else set())
        taken = memory(Path(folder), set(cores))
    goals = []
    for name, figures in compared.items():
        one, two = figures[ONE], figures[TWO]
        value = round(two["per_second"] / one["per_second"], 3)
        figures["two per one"] = {"per_second": value}
        if name.endswith(ASKED):
            holds = value >= 1.7 and min(one["busy"], two["busy"]) >= BUSY
            words = f"{name}: calls per second of two processes with a core each, of one with one"
            goals.append(goal(words, value, ">= 1.7, servers busy", holds))
    return {
        "repeats": repeats,
        "seconds": seconds,
        "connections_of_a_process": CONNECTIONS,
        "cores_of_the_servers": len(cores),
        "asker_has_a_core": own,
        "figures": compared,
        "memory": taken,
        "goals": goals,
    }


if __name__ == "__main__":
    main(__doc__, measure)
