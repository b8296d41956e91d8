"""Everything that a retraining reads and writes, for the tests of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.config import DecisionPoint
from engine.policy import Policy
from engine.records import Generation
from engine.store import PolicyStore
from tests.training.world import NAME, POINT, START_MS, World, archive_of, trained
from training.archive import ArchiveReader
from training.config import LightGBMConfig, RetrainingConfig
from training.job import Outcome, RetrainJob
from training.mlflow_import import mlflow
from training.pipeline import retrain
from training.registry import Registry

ROWS = 1_600
#: One oracle, to save time where the choice between several is not what is tested.
CONFIG = RetrainingConfig(min_events=1_000, oracles=("linear",))
BOTH = RetrainingConfig(min_events=1_000, lightgbm=LightGBMConfig(trees=40))


class MemoryLedger:
    """The topic of generations, as a list."""

    def __init__(self) -> None:
        self.entries: list[Generation] = []

    def generations(self, point: str) -> list[Generation]:
        return [entry for entry in self.entries if entry.decision_point == point]

    def append(self, generation: Generation) -> None:
        self.entries.append(generation)


@dataclass(frozen=True)
class Past:
    """A champion, the archive of what it did, and the hour after."""

    champion: Policy
    archive: Path
    now_ms: int


def past(shift: int, directory: Path) -> Past:
    """Let a champion that knows the world without a shift act in one with it."""
    champion = trained(World(seed=20), 2_000)
    world = World(seed=21, shift=shift)
    return Past(champion, archive_of(world.stream(champion, ROWS), directory), world.time_ms + 1_000)


@dataclass
class Floor:
    """Everything that a retraining writes to."""

    directory: Path
    registry: Registry
    store: PolicyStore = field(init=False)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    said: list[str] = field(default_factory=list)
    holds: list[str | None] = field(default_factory=list)  # the answers about a hold, one after the other; then none

    def __post_init__(self) -> None:
        self.store = PolicyStore(self.directory / "policies")

    def retrain(
        self,
        past: Past,
        config: RetrainingConfig = CONFIG,
        point: DecisionPoint = POINT,
        *,
        dry_run: bool = False,
        reason: Literal["drift", "schedule", "manual"] = "drift",
        until_ms: int | None = None,
        since_ms: int | None = START_MS,
    ) -> Outcome:
        self.store.publish(past.champion)
        return self.again(
            past,
            RetrainJob(NAME, point, config, self.directory, reason, since_ms, until_ms, dry_run, code_version="1.2.3"),
        )

    def again(self, past: Past, job: RetrainJob | None = None) -> Outcome:
        job = job or RetrainJob(NAME, POINT, CONFIG, self.directory, "drift", START_MS, code_version="1.2.3")
        return retrain(
            job,
            archive=ArchiveReader(past.archive),
            store=self.store,
            registry=self.registry,
            ledger=self.ledger,
            now_ms=past.now_ms,
            progress=self.said.append,
            hold=lambda: self.holds.pop(0) if self.holds else None,
        )

    @property
    def client(self) -> Any:
        return mlflow.MlflowClient(self.registry.tracking_uri)

    def versions(self) -> int:
        return len(self.client.search_model_versions("name = 'leeway-offers'"))
