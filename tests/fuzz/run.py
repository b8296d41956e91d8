"""Runs the harnesses under atheris, which looks for inputs that reach new code: ``python -m tests.fuzz.run``.

Each harness gets a process of its own, whose inputs may take half a minute and two gigabytes at most. What it finds
lies below ``--found``, a folder for each harness; put what was a defect into ``tests/fuzz/corpus`` once it is mended.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: What each harness reads with: the rest is not looked into, which keeps it fast.
INSTRUMENTED = ["engine", "streaming", "training"]


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Run one harness in this process, which atheris ends."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.harnesses import HARNESSES
    harness = HARNESSES[name]
    logging.disable(logging.CRITICAL)
    corpus, folder = found / name / "corpus", Path(tempfile.mkdtemp(prefix="leeway-fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(harness.corpus()):
        (corpus / f"seed-{number}").write_bytes(data)

    def one(data: bytes) -> None:
        harness.refuses(data, folder)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    limits = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=2048", f"-artifact_prefix={found / name}/"]
    atheris.Setup([name, str(corpus), *limits], one)
    atheris.Fuzz()


def main() -> int:
    """Run some harnesses, or all; return how many found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of harnesses; none: all of them")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="where to put what is found")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        fuzz(given.names[0], given.seconds, given.found)
        return 0
    from tests.fuzz.harnesses import HARNESSES

    failed = []
    for name in given.names or HARNESSES:
        again = [sys.executable, "-m", "tests.fuzz.run", "--here", name, "--found", str(given.found.resolve())]
        # What atheris adds to a function, Numba cannot compile.
        environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
        code = subprocess.run([*again, "--seconds", str(given.seconds)], env=environment, check=False).returncode
        print(f"{name}: {'nothing' if code == 0 else f'ended with {code}'}", flush=True)
        if code:
            failed.append(name)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
