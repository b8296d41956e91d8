"""The policies of recommenders on disk: as those of decision points, a file each, written whole or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from engine.config import Recommender
from engine.errors import SnapshotError
from engine.recommender.catalogue import Catalogue
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import TwoTower
from engine.store import FORMAT, SnapshotStore
from engine.stored_archive import stored


def pack_recommender(policy: RecommenderPolicy) -> bytes:
    """Return the file form of a recommender's policy: a NumPy archive of plain arrays."""
    buffer = io.BytesIO()
    manifest = {"format": FORMAT, "created_ms": policy.created_ms, "digest": policy.digest(), **policy.manifest()}
    data = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, manifest=data, **policy.arrays())
    return buffer.getvalue()


def read_recommender(path: Path) -> RecommenderPolicy:
    """Read a recommender's policy; raises ``SnapshotError`` if it is missing, damaged, or of another format or kind."""
    try:
        # Opened here: np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(stored(file), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        manifest = json.loads(arrays.pop("manifest").tobytes())
        if manifest["format"] != FORMAT:
            raise SnapshotError(
                f"{path}: format {manifest['format']} is not {FORMAT}; read it with the Leeway that wrote it"
            )
        if "recommender" not in manifest:
            raise SnapshotError(f"{path}: is the policy of a decision point, and none of a recommender")
        parts = {
            part: {key.removeprefix(f"{part}."): array for key, array in arrays.items() if key.startswith(f"{part}.")}
            for part in ("space", "model", "catalogue")
        }
        recommender = Recommender.model_validate(manifest["config"])
        policy = RecommenderPolicy(
            name=manifest["recommender"],
            recommender=recommender,
            space=FieldSpace.from_arrays(parts["space"]),
            model=TwoTower.from_arrays(parts["model"]) if manifest["model"] is not None else None,
            catalogue=Catalogue.from_arrays(recommender.item, parts["catalogue"]) if parts["catalogue"] else None,
            generation=manifest["generation"],
            update=manifest["update"],
            learned=manifest["learned"],
            created_ms=manifest["created_ms"],
            uniform_share=manifest["uniform_share"],
            vectors=arrays.get("vectors"),
            graph=arrays.get("graph"),
        )
        whole = policy.digest() == manifest["digest"]
    except FileNotFoundError:
        raise SnapshotError(f"{path}: no such policy file; it was deleted, or never published here") from None
    except SnapshotError:
        raise
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: not a whole policy file ({type(error).__name__}: {error}); restore it from a copy, or retrain"
        ) from error
    if not whole:
        raise SnapshotError(
            f"{path}: content does not match its digest; the file was changed or damaged; restore it from a copy"
        )
    return policy


class RecommenderStore(SnapshotStore[RecommenderPolicy]):
    """The policies of all recommenders; they may share a directory with those of decision points."""

    pack = staticmethod(pack_recommender)
    read = staticmethod(read_recommender)
