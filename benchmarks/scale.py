"""Batch retraining on a window that is larger than memory: how much memory it takes, and how fast it is beside bare
LightGBM on the same matrix, already in memory.

An archive is written in its real form: each row a decision between ten actions with its whole logged vector, in the
order in which rewards came. ``leeway retrain`` runs on it in a process of its own, with checks, evaluation, gate and
registry. Its fit step is what leads from the archive to the model: the extraction of the window, and the fit. Bare
LightGBM has the same rows, parameters and threads, in a process of its own as well. The number of rows may be set by
``LEEWAY_BENCHMARK_ROWS``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks._harness import goal, main
from benchmarks._scale_archive import ACTIONS, FEATURES, NAME, write_archive
from engine.config import DecisionPoint

GIB = 1 << 30
MEMORY = 6.0  # GiB
SPEED = 0.8
_ROWS = "LEEWAY_BENCHMARK_ROWS"
_EVERY_S = 0.05

POINT = {
    "context": {f"x{j}": {"type": "number"} for j in range(FEATURES)},
    "policy": {"exploration": {"kind": "squarecb"}},
}
RETRAINING = {"oracles": ["lightgbm"], "hold_back": 0.25}


@dataclass
class Ran:
    """What a process said, and the most memory that it and its children had at once."""

    peak: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def at(self, words: str) -> dict[str, Any]:
        """Return the line that begins so."""
        return next(line for line in self.lines if line["words"].startswith(words))


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def run(role: str, config: Path) -> Ran:
    command = [sys.executable, "-m", "benchmarks._scale_process", role, str(config)]
    ran, over = Ran(), threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while not over.wait(_EVERY_S):
                ran.peak = max(ran.peak, resident(process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        assert process.stdout is not None
        for text in process.stdout:
            line = json.loads(text)
            ran.lines.append(line)
            say(f"{role} {line['wall']:8.1f} s  {ran.peak / GIB:5.2f} GiB  {line['words']}")
        over.set()
        watching.join()
        if process.wait():
            raise SystemExit(f"{role} ended with status {process.returncode}; see above")
    return ran


def resident(pid: int) -> int:
    """Return the resident bytes of a process and all below it, mapped files included; 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident(int(child)) for child in children)


def measure(quick: bool) -> dict[str, Any]:
    rows = int(os.environ.get(_ROWS, 200_000 if quick else 10_000_000))
    with tempfile.TemporaryDirectory(prefix="leeway-scale-") as name:
        directory = Path(name)
        config = directory / "leeway.yaml"
        described = {
            "version": 1,
            "data_dir": str(directory),
            "decision_points": {NAME: POINT | {"retraining": RETRAINING}},
        }
        config.write_text(yaml.safe_dump(described))
        archive = write_archive(directory / "archive", DecisionPoint.model_validate(POINT), rows, say)
        archived = sum(path.stat().st_size for path in archive.rglob("*.parquet"))
        retraining, alone = run("retrain", config), run("bare", config)
    extract, fit, fitted = (retraining.at(words) for words in ("extract:", "fit:", "evaluate:"))
    done, bare = retraining.at("done"), alone.at("bare")
    step = {clock: extract[clock] + fitted[clock] - fit[clock] for clock in ("wall", "cpu")}
    speed = bare["wall"] / step["wall"]
    peak = retraining.peak / GIB
    return {
        "rows": rows,
        "rows_fitted_on": bare["rows"],
        "actions": ACTIONS,
        "context_features": FEATURES,
        "archive_bytes": archived,
        "outcome": done["outcome"],
        "peak_gib": peak,
        "bare_peak_gib": alone.peak / GIB,
        "seconds": {
            "extract": extract["wall"],
            "fit": fitted["wall"] - fit["wall"],
            "fit_step": step["wall"],
            "pipeline": done["wall"],
            "bare_lightgbm": bare["wall"],
        },
        "rows_per_second": {
            "fit_step": bare["rows"] / step["wall"],
            "pipeline": rows / done["wall"],
            "bare_lightgbm": bare["rows"] / bare["wall"],
        },
        "fit_step_speed_by_cpu_seconds": bare["cpu"] / step["cpu"],
        "steps": retraining.lines,
        "goals": [
            goal(f"peak memory of a retraining on {rows} rows, GiB", peak, f"<= {MEMORY:g}", peak <= MEMORY),
            goal(
                "rows per second of the fit step, archive to model, beside bare LightGBM",
                speed,
                f">= {SPEED:g}",
                speed >= SPEED,
            ),
        ],
    }


if __name__ == "__main__":
    main(__doc__, measure)
