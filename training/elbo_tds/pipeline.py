"""Training day by day: score a day with the model of the days before, extend the tables, learn from it in one pass.

After a day, and within it after so many chunks, a checkpoint is written. A training that was killed goes on from the
last one, and comes out bit for bit as if nothing had happened: every draw depends on the seed and the number of the
step, a first embedding on the seed and its row, and a chunk on the source alone. Memory is bounded by a chunk and the
model, not by a day.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import ConfigError, SnapshotError
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import TwoTower
from training.elbo_tds import checkpoint
from training.elbo_tds.config import ElboTdsConfig
from training.elbo_tds.day_report import DayReport
from training.elbo_tds.day_runs import DayRuns
from training.elbo_tds.model import ElboTds
from training.elbo_tds.streamed import StreamedRanking
from training.elbo_tds.towers import TowerNetwork
from training.registry import Registry
from training.sessions import Sessions, SessionSource
from training.sessions.metrics import Ranking

CHECKPOINT = "checkpoint.npz"

#: Day, what is done with it ("score", "extend" or "train"), and sessions done so far in that.
Progress = Callable[[int, str, int], None]
#: Takes the model after a day; may be called again for a day after a crash.
Publish = Callable[[int, FieldSpace, TwoTower], None]


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Attributes
    ----------
    space, model
        What is served.
    state
        What a retraining goes on from: see ``training.elbo_tds.model.ElboTds.arrays``.
    days
        A report of each day, in order.
    run_id
        MLflow's run of the whole, if there is one.
    """

    space: FieldSpace
    model: TwoTower
    state: Mapping[str, NDArray[Any]]
    days: tuple[DayReport, ...]
    run_id: str | None


def train_recommender(
    config: ElboTdsConfig,
    source: SessionSource,
    directory: Path,
    *,
    name: str = "recommender",
    network: TowerNetwork | None = None,
    fit_days: int = 1,
    chunks: int = 32,
    checkpoint_chunks: int = 64,
    registry: Registry | None = None,
    publish: Publish = lambda day, space, model: None,
    progress: Progress = lambda day, doing, sessions: None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Trained:
    """Train on all days of a source that were not learned yet.

    Called again with more days it goes on after the last one; called again after a crash it goes on from there.

    Parameters
    ----------
    config
        Model, objective, optimiser.
    source
        The sessions.
    directory
        Of the checkpoint; made if need be.
    name
        Of the recommender, in MLflow.
    network
        Of the towers; default: an MLP of the configured widths.
    fit_days
        Buckets and first vocabularies are fitted on so many of the first days.
    chunks
        Batches of sessions that are read at once, which bounds the memory.
    checkpoint_chunks
        A checkpoint is written after so many chunks within a day.
    registry
        MLflow; ``None``: nothing is written there.
    publish
        Takes the model after each day.
    progress
        Is told what is being done.
    now_ms
        Time of the metrics.

    Raises
    ------
    ConfigError
        The source has no day, or the network cannot be served.
    SnapshotError
        The checkpoint is damaged, or of another configuration or other fields.
    """
    if not source.days():
        raise ConfigError("the source has no day; there is nothing to train on")
    run = _Run(config, source, directory / CHECKPOINT, network, fit_days, config.batch_sessions * chunks, progress)
    run.begin()
    with DayRuns.open(registry, name, run.key, config) as runs:
        for report in run.reports[-1:]:
            # The last time may have ended between the checkpoint and this.
            runs.write(report, now_ms())
        for day in run.days_left():
            run.train_day(day, checkpoint_chunks)
            publish(day, run.model.space, run.model.two_tower())
            run.finish_day(day)
            runs.write(run.reports[-1], now_ms())
    return Trained(run.model.space, run.model.two_tower(), run.model.arrays(), tuple(run.reports), runs.run_id)


class _Run:
    """A training with its place: the day that is being learned, and the passes and chunks of it that are."""

    def __init__(
        self,
        config: ElboTdsConfig,
        source: SessionSource,
        path: Path,
        network: TowerNetwork | None,
        fit_days: int,
        sessions: int,
        progress: Progress,
    ) -> None:
        self.model = ElboTds(config, source.user, source.item, source.tasks, network=network)
        self.reports: list[DayReport] = []
        self.key = uuid.uuid4().hex
        self._source = source
        self._path = path
        self._fit_days = fit_days
        self._sessions = sessions
        self._progress = progress
        self._under_way: dict[str, Any] | None = None

    def begin(self) -> None:
        """Take up the last checkpoint, or write the first."""
        found = checkpoint.load(self._path)
        if found is None:
            self._save(with_model=False)
            return
        manifest, arrays = found
        for setting, ours in self._identity().items():
            if manifest[setting] != ours:
                raise SnapshotError(
                    f"{self._path}: was made with {setting} {manifest[setting]}, but now it is {ours}; go on with what "
                    "it was made with, or train in an empty directory"
                )
        self.key = manifest["key"]
        self.reports = [DayReport.from_json(report) for report in manifest["reports"]]
        self._under_way = manifest["under_way"]
        if arrays:
            self.model.restore(arrays)

    def days_left(self) -> Sequence[int]:
        """Return the days that are not learned yet."""
        last = self.reports[-1].day if self.reports else None
        return [day for day in self._source.days() if last is None or day > last]

    def train_day(self, day: int, checkpoint_chunks: int) -> None:
        """Score a day and learn from it, or go on with it."""
        if self._under_way is None:
            rankings = self._scored(day)
            self._extend(day)
            self._under_way = {"day": day, "rankings": DayReport(day, rankings, {}).to_json()["rankings"], "done": 0}
        done = number = 0
        for _ in range(self.model.config.passes):
            for chunk in self._read([day], "train"):
                number += 1
                if number <= self._under_way["done"]:
                    continue
                self.model.train(chunk)
                self._under_way["done"] = number
                done += 1
                if done % checkpoint_chunks == 0:
                    self._save()

    def finish_day(self, day: int) -> None:
        """Write the checkpoint of a day that is learned."""
        assert self._under_way is not None
        report = {"day": day, "rankings": self._under_way["rankings"], "losses": self.model.losses()}
        self.reports.append(DayReport.from_json(report))
        self._under_way = None
        self._save()

    def _scored(self, day: int) -> dict[str, Ranking]:
        if not self.reports:
            return {}
        streamed = [StreamedRanking() for _ in self._source.tasks]
        for chunk in self._read([day], "score"):
            scores = self.model.score(chunk)
            for task, metrics in enumerate(streamed):
                metrics.add(chunk.labels[:, task], scores[:, task], chunk.session)
        return {task: metrics.result() for task, metrics in zip(self._source.tasks, streamed, strict=True)}

    def _extend(self, day: int) -> None:
        days = [day] if self.reports else list(self._source.days())[: self._fit_days]
        self.model.extend(self._read(days, "extend"))

    def _read(self, days: Sequence[int], doing: str) -> Iterator[Sessions]:
        for day in days:
            sessions = 0
            for chunk in self._source.read(day, self._sessions):
                yield chunk
                sessions += int(chunk.session[-1]) + 1 if len(chunk) else 0
                self._progress(day, doing, sessions)

    def _identity(self) -> dict[str, Any]:
        return {
            "config": self.model.config.model_dump(mode="json"),
            "network": repr(self.model.network),
            "tasks": list(self.model.tasks),
            "sessions_at_once": self._sessions,
        }

    def _save(self, *, with_model: bool = True) -> None:
        manifest = {
            **self._identity(),
            "key": self.key,
            "reports": [report.to_json() for report in self.reports],
            "under_way": self._under_way,
        }
        checkpoint.save(self._path, manifest, self.model.arrays() if with_model else {})
