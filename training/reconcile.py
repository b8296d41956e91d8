"""Registry and ledger brought together after a crash between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf import json_format

from engine.records import Generation
from engine.store import SnapshotStore, Versioned
from training.job import Ledger
from training.registry import GENERATION_TAG, Registry

P = TypeVar("P", bound=Versioned)


def reconcile(
    point: str,
    *,
    store: SnapshotStore[P],
    registry: Registry,
    ledger: Ledger,
    progress: Callable[[str], None] = lambda words: None,
) -> Generation | None:
    """Finish a promotion that a crash cut off between the alias and the ledger; return the entry written, if any.

    A champion of an earlier generation than the ledger's last is a rollback, and stays as it is.
    """
    champion = registry.champion(point)
    if champion is None or GENERATION_TAG not in champion.tags:
        return None
    entry = ledger_entry(champion.tags[GENERATION_TAG], champion.version)
    if entry.generation <= last_promoted(ledger, point):
        return None
    store.save(registry.fetch(champion, store.read))
    ledger.append(entry)
    progress(f"finished the promotion of {entry.policy_version}, which had been cut off")
    return entry


def ledger_entry(text: str, version: str) -> Generation:
    """Return the entry of the ledger that a version's tag holds."""
    entry = json_format.Parse(text, Generation())
    entry.registry_version = version
    return entry


def last_promoted(ledger: Ledger, point: str) -> int:
    """Return the number of the newest generation that was promoted; 0 before the first."""
    return max((entry.generation for entry in ledger.generations(point) if entry.promoted), default=0)
