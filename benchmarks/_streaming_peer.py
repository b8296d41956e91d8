"""The environment of Quix Streams: its own, since one cannot ask a user's to fit another library's versions."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENT = "quixstreams==3.28.1"
PROGRAM = Path(__file__).parent / "peers" / "quix_join.py"


def python() -> tuple[str | None, str]:
    """Return the interpreter of the environment, made if need be; or none, and why."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leeway-benchmarks"
    folder = cache / f"{REQUIREMENT.replace('==', '-')}-py{sys.version_info.major}{sys.version_info.minor}"
    interpreter = folder / "bin" / "python"
    try:
        if not interpreter.exists():
            venv.create(folder, with_pip=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"{REQUIREMENT} cannot be installed: {getattr(error, 'stderr', None) or error}"
    return str(interpreter), ""
