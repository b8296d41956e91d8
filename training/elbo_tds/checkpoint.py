"""The checkpoint of a training: one NumPy archive, written whole or not at all, read without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError

FORMAT = 1
_MANIFEST = "manifest"


def save(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a checkpoint in the place of the one before; raises ``SnapshotError`` when the disk refuses.

    Parameters
    ----------
    path
        The file.
    manifest
        What can be said in JSON.
    arrays
        Of :meth:`training.elbo_tds.model.ElboTds.arrays`; none before the first day.
    """
    buffer = io.BytesIO()
    written = np.frombuffer(json.dumps({"format": FORMAT, **manifest}).encode(), np.uint8)
    np.savez(
        buffer, allow_pickle=False, **{_MANIFEST: written}, **{f"model.{key}": array for key, array in arrays.items()}
    )
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error


def load(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Return manifest and arrays, or ``None`` if there is no checkpoint; raises ``SnapshotError`` if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            manifest = json.loads(archive[_MANIFEST].tobytes())
            arrays = {key.removeprefix("model."): archive[key] for key in archive.files if key != _MANIFEST}
    except FileNotFoundError:
        return None
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: no whole checkpoint ({type(error).__name__}: {error}); delete it to train from the first day, or "
            "restore it from a copy"
        ) from error
    if manifest["format"] != FORMAT:
        raise SnapshotError(f"{path}: format {manifest['format']} is not {FORMAT}; use the Leeway that wrote it")
    return manifest, arrays
