"""The first step of a retraining: the plan, and the feedback of its window, on disk beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.features import Encoder
from engine.records import GenerationStatistics
from engine.store import PolicyStore
from training import resume
from training.archive import ArchiveReader
from training.dataset import Dataset
from training.job import Ledger, RetrainJob
from training.planning import loader, make_plan
from training.reference_file import freeze_reference, read_reference, reference_path
from training.resume import Plan
from training.stored import StoredDataset


def window_path(job: RetrainJob) -> Path:
    """Return where the window of a decision point lies while it is retrained."""
    return job.data_dir / f"retrain-{job.name}.window"


@contextmanager
def extracted(
    job: RetrainJob,
    archive: ArchiveReader,
    store: PolicyStore,
    ledger: Ledger,
    statistics: Sequence[GenerationStatistics],
    now_ms: int,
) -> Iterator[tuple[Plan, StoredDataset]]:
    """Give the plan, that of a retraining that was cut off if its feedback is as it was, and the feedback.

    The feedback is deleted when the block ends. What a crash leaves of it the next retraining overwrites.
    """
    try:
        plan = None if job.dry_run else resume.unfinished(job, now_ms)
        rows = None
        if plan is not None:
            rows = _stored(job, archive, plan)
            if rows.digest() != plan.digest:
                rows.close()
                plan = None
        if plan is None or rows is None:
            entries = ledger.generations(job.name)
            plan = make_plan(job, entries, statistics, loader(store, job), _reference(job), now_ms)
            rows = _stored(job, archive, plan)
            plan = replace(plan, digest=rows.digest())
        try:
            yield plan, rows
        finally:
            rows.close()
    finally:
        shutil.rmtree(window_path(job), ignore_errors=True)


def keep_reference(job: RetrainJob, rows: StoredDataset) -> None:
    """Freeze the reference set where there is none yet; raises ``SnapshotError`` when the disk refuses."""
    if _reference(job) is None:
        freeze_reference(reference_path(job.data_dir, job.name), rows)


def _reference(job: RetrainJob) -> Dataset | None:
    encoder = Encoder(job.point)
    return read_reference(reference_path(job.data_dir, job.name), encoder.context.width, encoder.action.width)


def _stored(job: RetrainJob, archive: ArchiveReader, plan: Plan) -> StoredDataset:
    return archive.store(
        job.name, job.point, plan.start_ms, plan.end_ms, job.config.max_rows, directory=window_path(job)
    )
