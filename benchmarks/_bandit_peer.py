"""The environments of the peers of the bandits benchmark: one each, with what its versions need."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """A library that the benchmark compares with.

    Attributes
    ----------
    requirement
        Name and version.
    needs
        What it needs of its declared dependencies for what is used here; the rest is not installed.
    program
        Module that plays a job with it.
    """

    requirement: str
    needs: tuple[str, ...]
    program: str


VOWPAL_WABBIT = Peer("vowpalwabbit==9.11.9", ("numpy==2.4.6",), "benchmarks.peers.vowpal_wabbit")
VOWPAL_WABBIT_SERVING = Peer(
    "vowpalwabbit==9.11.9",
    ("numpy==2.4.6", "grpcio==1.85.1", "protobuf==7.35.1", "googleapis-common-protos"),
    "benchmarks.peers.vw_serving",
)
#: Its module of linear policies needs neither torch nor a plotting library, which the package declares.
OBP = Peer("obp==0.4.1", ("numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1"), "benchmarks.peers.obp_linucb")
CONTEXTUALBANDITS = Peer(
    "contextualbandits==0.3.30",
    ("numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1", "pandas==3.1.1", "joblib", "Cython"),
    "benchmarks.peers.contextualbandits_linucb",
)


def python(peer: Peer) -> tuple[str | None, str]:
    """Return the interpreter of a peer's environment, made if need be; or none, and why."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leeway-benchmarks"
    folder = cache / f"{peer.requirement.replace('==', '-')}-py{sys.version_info.major}{sys.version_info.minor}"
    interpreter = folder / "bin" / "python"
    # Two benchmarks may need different packages beside one peer.
    done = folder / f"complete-{zlib.crc32(' '.join(peer.needs).encode()):08x}"
    if done.exists():
        return str(interpreter), ""
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        venv.create(folder, with_pip=True)
        for command in ([*pip, *peer.needs], [*pip, "--no-deps", peer.requirement]):
            subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"{peer.requirement} cannot be installed: {getattr(error, 'stderr', None) or error}"
    done.touch()
    return str(interpreter), ""
