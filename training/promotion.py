"""Promotion and rollback by hand or by a test: another version of the registry becomes champion.

Generations are never counted backwards: a version that served before comes back as a new generation with the same
oracle. What is written, and in which order, is what a retraining writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from google.protobuf import json_format

from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.records import Generation
from engine.store import SnapshotStore
from training.job import ExitCode, Ledger
from training.lock import exclusive
from training.pipeline import Hold
from training.reconcile import last_promoted, reconcile
from training.registry import CHALLENGER, GENERATION_TAG, PREVIOUS, RegisteredVersion, Registry

Kind = Literal["promote", "rollback"]
P = TypeVar("P", Policy, RecommenderPolicy)


@dataclass(frozen=True)
class Move:
    """What came of a promotion or rollback.

    Attributes
    ----------
    exit_code, words
        For the command line.
    version
        Of the registry, that is champion now, or would be; ``None``: nothing changes.
    generation
        The entry for the ledger; ``None``: nothing changes.
    """

    exit_code: ExitCode
    words: str
    version: str | None = None
    generation: Generation | None = None

    def report(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        entry = self.generation
        return {
            "exit_code": int(self.exit_code),
            "words": self.words,
            "registry_version": self.version,
            "generation": None if entry is None else entry.generation,
            "policy_version": None if entry is None else entry.policy_version,
        }


@dataclass(frozen=True)
class Floor(Generic[P]):
    """Where the policies of a decision point or recommender are kept.

    Attributes
    ----------
    name
        Its name.
    data_dir
        Where the lock file lies.
    store, registry, ledger
        Policies on disk, MLflow, and the generations.
    state_path
        Returns where that lies from which learning goes on behind a version.
    """

    name: str
    data_dir: Path
    store: SnapshotStore[P]
    registry: Registry
    ledger: Ledger
    state_path: Callable[[str], Path]


def promote(
    floor: Floor[Any],
    now_ms: int,
    *,
    version: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    hold: Hold = lambda: None,
) -> Move:
    """Make a version champion: the challenger, or the one that is named.

    One that the gate refused is promoted with ``force`` alone, and so is any while an alarm holds promotions.
    """
    with exclusive(floor.data_dir / f"retrain-{floor.name}.lock") as mine:
        if not mine:
            return _locked(floor)
        target = _wanted(floor, version)
        if target is None:
            return _missing(floor, version)
        if (held := hold()) is not None and not force:
            return Move(ExitCode.HELD, f"{held}; or promote all the same with --force")
        if target.tags.get("gate") == "refused" and not force:
            return _refused(target)
        return _move(floor, target, "promote", "promoted by hand", now_ms, dry_run)


@dataclass(frozen=True)
class OnTrial:
    """A policy that can be tried, or why there is none: ``policy`` is ``None`` then."""

    exit_code: ExitCode
    words: str
    version: str = ""
    policy: Policy | None = None


def on_trial(floor: Floor[Policy], *, version: str | None = None, force: bool = False) -> OnTrial:
    """Return a version of the registry, the challenger where none is named, as it would be tried.

    It is newer than all that were promoted: what a generation earned is kept under its number. One that the gate
    refused is tried with ``force`` alone.
    """
    target = _wanted(floor, version)
    if target is None:
        move = _missing(floor, version)
        return OnTrial(move.exit_code, move.words)
    if target.tags.get("gate") == "refused" and not force:
        move = _refused(target)
        return OnTrial(move.exit_code, move.words)
    served = floor.registry.load(target)
    last = last_promoted(floor.ledger, floor.name)
    policy = served if served.generation > last else replace(served, generation=last + 1, update=0)
    return OnTrial(ExitCode.PROMOTED, "", target.version, policy)


def _wanted(floor: Floor[Any], version: str | None) -> RegisteredVersion | None:
    if version is None:
        return floor.registry.aliased(floor.name, CHALLENGER)
    return floor.registry.version(floor.name, version)


def _missing(floor: Floor[Any], version: str | None) -> Move:
    which = "challenger" if version is None else f"version {version}"
    return Move(ExitCode.NOT_ENOUGH_DATA, f"{floor.name} has no {which} in the registry; see: leeway generations")


def _refused(target: RegisteredVersion) -> Move:
    verdict = target.tags.get("verdict", "")
    words = f"version {target.version} did not pass the gate ({verdict}); take it all the same with --force"
    return Move(ExitCode.REFUSED, words)


def rollback(
    floor: Floor[Any], now_ms: int, *, generation: int | None = None, why: str = "by hand", dry_run: bool = False
) -> Move:
    """Make the champion before this one champion again, or the version of a generation that is named."""
    with exclusive(floor.data_dir / f"retrain-{floor.name}.lock") as mine:
        if not mine:
            return _locked(floor)
        target = (
            floor.registry.aliased(floor.name, PREVIOUS)
            if generation is None
            else floor.registry.find(floor.name, "generation", str(generation))
        )
        if target is None:
            which = "previous champion" if generation is None else f"generation {generation}"
            words = f"{floor.name} has no {which} in the registry; see: leeway generations, then --generation"
            return Move(ExitCode.NOT_ENOUGH_DATA, words)
        return _move(floor, target, "rollback", f"rolled back {why}", now_ms, dry_run)


def _locked(floor: Floor[Any]) -> Move:
    return Move(ExitCode.LOCKED, f"a retraining of {floor.name} is under way; try again when it is done")


def _move(floor: Floor[Any], target: RegisteredVersion, kind: Kind, words: str, now_ms: int, dry_run: bool) -> Move:
    if not dry_run:
        reconcile(floor.name, store=floor.store, registry=floor.registry, ledger=floor.ledger)
    champion = floor.registry.champion(floor.name)
    if champion is not None and champion.version == target.version:
        return Move(ExitCode.PROMOTED, f"nothing to do: version {target.version} is champion", target.version)
    served = floor.registry.fetch(target, floor.store.read)
    last = last_promoted(floor.ledger, floor.name)
    policy = served if served.generation > last else replace(served, generation=last + 1, update=0, created_ms=now_ms)
    before = _entry_of(target)
    entry = Generation()
    entry.CopyFrom(before)
    entry.decision_point, entry.generation, entry.policy_version = floor.name, policy.generation, policy.version
    entry.oracle, entry.trained_ms, entry.reason, entry.promoted = target.tags.get("oracle", ""), now_ms, kind, True
    entry.run_id = target.run_id
    entry.verdict = f"{words}: version {target.version}, {served.version}"
    if policy is served:
        entry.registry_version = target.version
    said = (
        f"{policy.version} (generation {policy.generation}) {'would serve' if dry_run else 'serves'}: {entry.verdict}"
    )
    if dry_run:
        return Move(ExitCode.PROMOTED, said, target.version, entry)

    old, new = floor.state_path(served.version), floor.state_path(policy.version)
    if old != new and old.exists():
        shutil.copyfile(old, new)
    floor.store.save(policy)
    tags = {
        "policy_version": policy.version,
        "generation": policy.generation,
        "oracle": entry.oracle,
        "gate": target.tags.get("gate", ""),
        "verdict": entry.verdict,
        GENERATION_TAG: json_format.MessageToJson(entry, indent=None),
    }
    registered = floor.registry.register(policy, target.run_id, tags)
    entry.registry_version = registered.version
    floor.registry.promote(floor.name, registered.version)
    if kind == "rollback" and champion is not None:
        floor.registry.tag(floor.name, champion.version, "rolled_back", words)
        # It was left for a reason: the next rollback must not bring it back.
        floor.registry.forget(floor.name, PREVIOUS)
    floor.ledger.append(entry)
    return Move(ExitCode.PROMOTED, said, registered.version, entry)


def _entry_of(version: RegisteredVersion) -> Generation:
    text = version.tags.get(GENERATION_TAG)
    return Generation() if text is None else json_format.Parse(text, Generation())
