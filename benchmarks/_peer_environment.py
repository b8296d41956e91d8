"""An environment of its own for a peer, since one cannot ask a user's to fit another library's versions."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path


def python(requirement: str) -> tuple[str | None, str]:
    """Return the interpreter of the environment with ``name==version``, made if need be; or none, and why."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leeway-benchmarks"
    folder = cache / f"{requirement.replace('==', '-')}-py{sys.version_info.major}{sys.version_info.minor}"
    interpreter = folder / "bin" / "python"
    try:
        if not interpreter.exists():
            venv.create(folder, with_pip=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"{requirement} cannot be installed: {getattr(error, 'stderr', None) or error}"
    return str(interpreter), ""
