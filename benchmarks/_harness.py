"""What every benchmark shares: its arguments, the machine, and the form of its result."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else ""
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def goal(name: str, value: float, bound: str, holds: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "bound": bound, "holds": bool(holds)}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the arguments of every benchmark; one that has more adds them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, required=True, help="write the result here")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    return parser


def write(given: argparse.Namespace, measured: dict[str, Any]) -> None:
    """Write the result, and show it."""
    result = {"machine": machine(), "quick": given.quick, "goals": [], **measured}
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def main(description: str | None, measure: Callable[[bool], dict[str, Any]]) -> None:
    """Run a benchmark from the command line and write its result."""
    given = arguments(description).parse_args()
    write(given, measure(given.quick))
