"""Policies on disk: one file each, written whole or not at all, never changed; and a pointer to the current one.

A file is a NumPy archive (``.npz``) of plain arrays, read without pickle, so that no file can run code.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from engine.atomic_file import write_atomically
from engine.config import Challenger, DecisionPoint
from engine.errors import SnapshotError
from engine.oracles import ORACLES
from engine.policy import Policy
from engine.stored_archive import stored

FORMAT = 1
_CURRENT = "CURRENT"
_CHALLENGER = "CHALLENGER"


class Versioned(Protocol):
    """A policy of any kind, as far as a store needs to know it."""

    @property
    def name(self) -> str:
        """Of its decision point or recommender."""

    @property
    def version(self) -> str:
        """Its version."""


P = TypeVar("P", bound=Versioned)


def pack_policy(policy: Policy) -> bytes:
    """Return the file form of a policy."""
    import io

    buffer = io.BytesIO()
    manifest = {
        "format": FORMAT,
        "created_ms": policy.created_ms,
        "digest": policy.digest(),
        **policy.manifest(),
    }
    arrays = {f"oracle.{key}": array for key, array in policy.oracle.arrays().items()}
    np.savez(buffer, allow_pickle=False, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)
    return buffer.getvalue()


def read_policy(path: Path) -> Policy:
    """Read a policy file; raises ``SnapshotError`` if it is missing, damaged, or of a later format."""
    try:
        # Opened here: np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(stored(file), allow_pickle=False) as archive:
            manifest = json.loads(archive["manifest"].tobytes())
            arrays = {key.removeprefix("oracle."): archive[key] for key in archive.files if key.startswith("oracle.")}
        if manifest["format"] != FORMAT:
            raise SnapshotError(
                f"{path}: format {manifest['format']} is not {FORMAT}; read it with the Leeway that wrote it"
            )
        policy = Policy(
            name=manifest["decision_point"],
            point=DecisionPoint.model_validate(manifest["point"]),
            vocabulary=tuple(manifest["vocabulary"]),
            oracle=ORACLES[manifest["oracle"]].from_arrays(arrays),
            generation=manifest["generation"],
            update=manifest["update"],
            learned=manifest["learned"],
            created_ms=manifest["created_ms"],
            uniform_share=manifest["uniform_share"],
        )
        whole = policy.digest() == manifest["digest"]
    except FileNotFoundError:
        raise SnapshotError(f"{path}: no such policy file; it was deleted, or never published here") from None
    except SnapshotError:
        raise
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: not a whole policy file ({type(error).__name__}: {error}); "
            "delete it, and the learner publishes the next one, or restore it from a copy"
        ) from error
    if not whole:
        raise SnapshotError(
            f"{path}: content does not match its digest; the file was changed or damaged; restore it from a copy"
        )
    return policy


class SnapshotStore(ABC, Generic[P]):
    """The policies of one kind below one directory.

    Parameters
    ----------
    root
        ``<root>/<decision point>/<version>.npz`` and a file ``CURRENT`` beside them that names the one to serve.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    @abstractmethod
    def pack(policy: P) -> bytes:
        """Return the file form of a policy."""

    @staticmethod
    @abstractmethod
    def read(path: Path) -> P:
        """Read a policy file; raises ``SnapshotError`` if it is missing, damaged, or of a later format."""

    def path(self, point: str, version: str) -> Path:
        """Return where a version lies."""
        return self.root / point / f"{version}.npz"

    def save(self, policy: P) -> Path:
        """Write a policy without making it current; raises ``SnapshotError`` when the disk refuses."""
        path = self.path(policy.name, policy.version)
        if not path.exists():
            try:
                write_atomically(path, self.pack(policy))
            except OSError as error:
                raise SnapshotError(
                    f"{path}: cannot be written ({error.strerror}); make room or mend the directory"
                ) from error
        return path

    def publish(self, policy: P) -> None:
        """Write a policy and make it the current one."""
        self.save(policy)
        self.set_current(policy.name, policy.version)

    def set_current(self, point: str, version: str) -> None:
        """Point at a version that is already there."""
        try:
            write_atomically(self.root / point / _CURRENT, version.encode())
        except OSError as error:
            raise SnapshotError(
                f"{self.root / point / _CURRENT}: cannot be written ({error.strerror}); make room"
            ) from error

    def current(self, point: str) -> str | None:
        """Return the version to serve, or ``None`` before the first."""
        try:
            # What is no text names no policy either, and is refused with the pointer's content when it is loaded.
            return (self.root / point / _CURRENT).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def set_challenger(self, point: str, challenger: Challenger | None) -> None:
        """Say which version, already there, is tried beside the current one; ``None``: none is."""
        path = self.root / point / _CHALLENGER
        try:
            if challenger is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, challenger.model_dump_json().encode())
        except OSError as error:
            raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room") from error

    def challenger(self, point: str) -> Challenger | None:
        """Return what is tried beside the current version; raises ``SnapshotError`` where the file is damaged."""
        path = self.root / point / _CHALLENGER
        try:
            return Challenger.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise SnapshotError(
                f"{path}: names no challenger ({error}); remove it with: leeway rollout stop"
            ) from error

    def load(self, point: str, version: str) -> P:
        """Read a version; raises ``SnapshotError``."""
        policy = self.read(self.path(point, version))
        if policy.version != version:
            raise SnapshotError(f"{self.path(point, version)}: holds {policy.version}; file names must not be changed")
        return policy

    def versions(self, point: str) -> list[str]:
        """Return the versions on disk, oldest first."""
        files = (self.root / point).glob("g*.npz")
        return [path.stem for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))]


class PolicyStore(SnapshotStore[Policy]):
    """The policies of all decision points."""

    pack = staticmethod(pack_policy)
    read = staticmethod(read_policy)
