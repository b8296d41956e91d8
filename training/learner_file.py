"""The statistics of an online learner on disk, beside the policy that was made of them.

A policy holds coefficients, from which nothing more can be learned. With this file the online learner goes on
from a retrained policy as if it had seen the whole window itself, the held-back part included.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError
from engine.oracles import STORED, Learner
from engine.oracles.nested import read_text, text
from engine.store import PolicyStore


def learner_path(store: PolicyStore, point: str, version: str) -> Path:
    """Return where the statistics behind a policy version lie.

    The name begins otherwise than a policy's, so that ``PolicyStore.versions`` does not take it for one.
    """
    return store.path(point, version).with_name(f"learner-{version}.npz")


def save_learner(path: Path, learner: Learner) -> None:
    """Write the statistics, whole or not at all; raises ``SnapshotError`` when the disk refuses."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, learner_kind=text(learner.kind), **learner.arrays())
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error


def read_learner(path: Path) -> Learner:
    """Read the statistics; raises ``SnapshotError`` if the file is missing or damaged."""
    try:
        # Opened here: np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        # A file that does not name the kind is from the time when there was one.
        kind = read_text(arrays.pop("learner_kind")) if "learner_kind" in arrays else "linear"
        return STORED[kind].from_arrays(arrays)
    except FileNotFoundError:
        raise SnapshotError(
            f"{path}: no such file; it was deleted, or the policy's oracle is fitted in batch only"
        ) from None
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: no whole file of learner statistics ({type(error).__name__}: {error}); delete it, and learning "
            "starts afresh from the feedback that follows"
        ) from error
