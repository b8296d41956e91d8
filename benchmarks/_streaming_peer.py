"""Where Quix Streams runs, and what runs there."""

from __future__ import annotations

from pathlib import Path

from benchmarks import _peer_environment

REQUIREMENT = "quixstreams==3.28.1"
PROGRAM = Path(__file__).parent / "peers" / "quix_join.py"


def python() -> tuple[str | None, str]:
    """Return the interpreter of its environment, made if need be; or none, and why."""
    return _peer_environment.python(REQUIREMENT)
