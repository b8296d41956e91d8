"""The reference set on disk: the requests on which the policies of all generations are compared, always the same."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path

import numpy as np

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError
from training.dataset import Dataset
from training.generations import REFERENCE, reference_set
from training.stored import Feedbacks


def reference_path(data_dir: Path, point: str) -> Path:
    """Return where the reference set of a decision point lies."""
    return data_dir / f"reference-{point}.npz"


def read_reference(path: Path, context_width: int, action_width: int) -> Dataset | None:
    """Return the reference set; ``None`` where there is none that fits the features, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            columns = {
                field.name: archive[field.name].astype(object)
                if archive[field.name].dtype.kind == "U"
                else archive[field.name]
                for field in fields(Dataset)
            }
        found = Dataset(**columns)
    except Exception:
        # Missing, or damaged bytes, which make the readers raise almost anything: another one is frozen then.
        return None
    fits = found.context.shape[1] == context_width and found.action.shape[1] == action_width
    return found if fits and len(found) else None


def freeze_reference(path: Path, rows: Feedbacks) -> None:
    """Choose the reference set from feedback and write it; nothing is written where there is too little of it.

    Raises ``SnapshotError`` when the disk refuses.
    """
    if len(rows) < REFERENCE:
        return
    chosen = reference_set(rows)
    buffer = io.BytesIO()
    arrays = {field.name: getattr(chosen, field.name) for field in fields(Dataset)}
    texts = {name: array.astype(str) for name, array in arrays.items() if array.dtype == object}
    np.savez(buffer, allow_pickle=False, **(arrays | texts))
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room") from error
