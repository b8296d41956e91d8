"""One retraining of a recommender: extract, a pass over the days, evaluate, gate, register, promote.

As for decision points (``training.pipeline``): what was held back judges, what is promoted is what was judged, and the
entry in the ledger, written last, is the sign that all is done. Before it are written, in this order: the state of the
training and the policy, in the policy store; the version in the registry; the alias ``champion``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from google.protobuf import json_format

from engine.config import Recommender, same_fields
from engine.errors import SnapshotError
from engine.recommender.catalogue import Catalogue
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.store import RecommenderStore
from engine.records import Feedback, Generation
from training.archive import ArchiveReader
from training.archive.list_sessions import ListSessions
from training.archive.lists import to_list_feedback
from training.config import RecommenderRetrainingConfig
from training.day_trainer import DayScore, DayTrainer, State, Trained, read_state, save_state, trainer_path
from training.evaluation import SLATE_ESTIMATORS
from training.evaluation.lists import ListEvaluation, acted, evaluate_lists, policy_of
from training.gate import Verdict, judge_lists
from training.job import ExitCode, Ledger, Outcome
from training.list_run_log import ListRunLog
from training.lock import exclusive
from training.pipeline import VERSION_TAG, WORK_TAG, Hold, Progress
from training.reconcile import last_promoted, reconcile
from training.registry import GENERATION_TAG, Registry


@dataclass(frozen=True)
class ListRetrainJob:
    """One retraining of one recommender.

    Parameters
    ----------
    name, recommender
        Which.
    config
        Its retraining.
    data_dir
        Where the lock file lies.
    catalogue
        What the new policy retrieves from.
    reason
        What asks for it; ``drift`` strengthens the augmentation.
    since_ms
        Decision time of the first list to use; ``None``: ``config.window`` before now.
    dry_run
        Train, evaluate and judge, and write nothing anywhere.
    code_version
        Of Leeway, for the record.
    """

    name: str
    recommender: Recommender
    config: RecommenderRetrainingConfig
    data_dir: Path
    catalogue: Catalogue | None = None
    reason: Literal["drift", "schedule", "manual"] = "manual"
    since_ms: int | None = None
    dry_run: bool = False
    code_version: str = "unknown"

    @property
    def p(self) -> float:
        """Strength of the augmentation in this day pass."""
        usual = self.config.elbo_tds.augmentation.p
        return max(usual, self.config.p_after_drift) if self.reason == "drift" else usual


def retrain_lists(
    job: ListRetrainJob,
    *,
    archive: ArchiveReader,
    store: RecommenderStore,
    registry: Registry,
    ledger: Ledger,
    trainer: DayTrainer,
    now_ms: int,
    progress: Progress = lambda words: None,
    hold: Hold = lambda: None,
) -> Outcome:
    """Train, prove and promote a recommender's policy, or say why not; see ``training.pipeline.retrain``.

    The training goes on from the state of the last promoted generation, with the lists since then; without one, with
    all of the window.

    Raises
    ------
    LeewayError
        Registry, archive or disk failed. Nothing is half done that the next run would not finish.
    """
    with exclusive(job.data_dir / f"retrain-{job.name}.lock") as mine:
        if not mine:
            return Outcome(ExitCode.LOCKED, f"another retraining of {job.name} is under way; try again when it is done")
        held = None if job.dry_run else hold()
        if held is not None:
            return Outcome(ExitCode.HELD, held)
        if not job.dry_run:
            reconcile(job.name, store=store, registry=registry, ledger=ledger, progress=progress)
        start_ms = now_ms - job.config.window if job.since_ms is None else job.since_ms
        window = _Window.read(archive, job.name, start_ms, now_ms)
        progress(f"extract: {len(window.time_ms)} lists of {job.name}")
        params, tags = _facts(job, window)
        name = f"{job.name} {job.reason}"
        with ListRunLog.open(None if job.dry_run else registry, name, params, tags, now_ms) as log:
            run = _Run(job, window, archive, store, registry, ledger, trainer, now_ms, progress, hold, log)
            outcome = run.outcome()
            log.outcome(job.name, outcome)
        progress(outcome.words)
        return outcome


@dataclass(frozen=True, eq=False)
class _Window:
    """Which lists there are, in the order of their times."""

    start_ms: int
    end_ms: int
    time_ms: np.ndarray[tuple[int], np.dtype[np.int64]]
    version: list[str]
    digest: str

    @classmethod
    def read(cls, archive: ArchiveReader, name: str, start_ms: int, end_ms: int) -> _Window:
        found: list[tuple[int, str, str, float]] = []
        columns = ["time_ms", "decision_id", "policy_version", "reward"]
        for batch in archive.batches(name, start_ms, end_ms, columns=columns):
            found += zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
        found.sort()
        digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        times = np.array([row[0] for row in found], np.int64)
        return cls(start_ms, end_ms, times, [row[2] for row in found], digest)


@dataclass(frozen=True)
class _Run:
    """The steps after extraction, over what they all need."""

    job: ListRetrainJob
    window: _Window
    archive: ArchiveReader
    store: RecommenderStore
    registry: Registry
    ledger: Ledger
    trainer: DayTrainer
    now_ms: int
    progress: Progress
    hold: Hold
    log: ListRunLog

    def outcome(self) -> Outcome:
        job, config, rows = self.job, self.job.config, len(self.window.time_ms)
        held_back = math.ceil(rows * config.hold_back)
        if rows < config.min_events:
            return self._too_few(rows, "in the window", config.min_events, "min_events")
        if held_back < config.gate.min_events:
            return self._too_few(held_back, "held back", config.gate.min_events, "gate.min_events")
        work = self._work()
        done = None if job.dry_run else self._done(work)
        if done is not None:
            return done

        cut = int(self.window.time_ms[rows - held_back])
        known = self._known(cut)
        start_ms = self.window.start_ms if known is None else max(self.window.start_ms, known[1])
        lists = int(((self.window.time_ms >= start_ms) & (self.window.time_ms < cut)).sum())
        if not lists:
            return self._too_few(0, "since the last training and before those held back", 1, "hold_back")
        self.progress(f"split: {lists} lists to train on, the newest {held_back} held back; augmentation {job.p:g}")
        trained = self._train(start_ms, cut, known)
        learned = lists + (0 if known is None else known[2])
        candidate = RecommenderPolicy(
            job.name, job.recommender, trained.space, trained.model, job.catalogue,
            last_promoted(self.ledger, job.name) + 1, 0, learned, self.now_ms,
        )  # fmt: skip
        evaluation, baseline, note, champion = self._evaluate(candidate, cut)
        verdict = judge_lists(evaluation, baseline, config.gate, SLATE_ESTIMATORS[config.estimator])
        words = f"two_tower {candidate.version} {verdict.summary}{note}"
        entry = self._entry_of(candidate, evaluation, baseline, verdict, words)
        holding = self.hold() if verdict.promoted and not job.dry_run else None
        if holding is not None:
            held = f"{words}; but {holding}"
            return Outcome(ExitCode.HELD, held, rows=rows, held_back=held_back, run_id=self.log.run_id)
        version = None if job.dry_run else self._write(candidate, trained, cut, learned, entry, work)
        return Outcome(
            ExitCode.PROMOTED if verdict.promoted else ExitCode.REFUSED,
            words,
            rows=rows,
            held_back=held_back,
            champion=champion,
            estimates={"champion": baseline.estimates, "two_tower": evaluation.estimates},
            verdict=verdict,
            recommender=candidate,
            generation=entry,
            run_id=self.log.run_id,
            registry_version=version,
        )

    def _too_few(self, found: int, where: str, least: int, setting: str) -> Outcome:
        words = f"{found} lists {where} of at least {least} ({setting}); wait for more, or widen the window"
        return Outcome(ExitCode.NOT_ENOUGH_DATA, words, rows=len(self.window.time_ms), run_id=self.log.run_id)

    def _work(self) -> str:
        """Return what decides the result: data, configuration, catalogue and code; not the hour."""
        job = self.job
        catalogue = None if job.catalogue is None else job.catalogue.digest
        parts = [
            job.name, job.recommender.model_dump(mode="json"), job.config.model_dump(mode="json"), job.p, catalogue,
            job.code_version,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps([self.window.digest, *parts], sort_keys=True).encode()).hexdigest()

    def _done(self, work: str) -> Outcome | None:
        """Return the outcome of the same work if it was brought to its end before."""
        version = self.registry.find(self.job.name, WORK_TAG, work)
        if version is None:
            return None
        entries = self.ledger.generations(self.job.name)
        entry = next((e for e in reversed(entries) if e.policy_version == version.tags[VERSION_TAG]), None)
        if entry is None:
            return None
        return Outcome(
            ExitCode.PROMOTED if entry.promoted else ExitCode.REFUSED,
            f"nothing to do: the same lists were trained on before (version {version.version}: {entry.verdict})",
            rows=len(self.window.time_ms),
            generation=entry,
            run_id=self.log.run_id,
            registry_version=version.version,
            done_before=True,
        )

    def _known(self, cut: int) -> tuple[State, int, int] | None:
        """Return the state to go on from: of the last promoted generation; before any, of a table's model."""
        promoted = [entry.policy_version for entry in self.ledger.generations(self.job.name) if entry.promoted]
        for version in promoted[-1:] or dict.fromkeys(reversed(self.window.version)):
            try:
                known = read_state(trainer_path(self.store.root / self.job.name, version))
                if known is not None:
                    policy = self.store.load(self.job.name, version)
                    fits = known[1] < cut and same_fields(policy.recommender, self.job.recommender)
                    return known if fits else None
            except SnapshotError as error:
                self.progress(f"training starts from scratch: {error}")
                return None
        return None

    def _train(self, start_ms: int, cut: int, known: tuple[State, int, int] | None) -> Trained:
        job = self.job
        source = ListSessions(self.archive, job.name, job.recommender, start_ms, cut)

        def on_day(score: DayScore) -> None:
            self.log.day(score)
            found = ", ".join(f"{task} {auc:.4f}" for task, auc in score.auc.items())
            self.progress(f"day {score.day}: {score.rows} items shown, AUC before learning it: {found}")

        state = None if known is None else known[0]
        earlier = None
        if known is not None and start_ms > self.window.start_ms:
            earlier = ListSessions(self.archive, job.name, job.recommender, self.window.start_ms, start_ms)
        return self.trainer(source, job.config, p=job.p, state=state, on_day=on_day, earlier=earlier)

    def _evaluate(
        self, candidate: RecommenderPolicy, cut: int
    ) -> tuple[ListEvaluation, ListEvaluation, str, str | None]:
        """Return the evaluations of candidate and champion, and a note where it is not the champion's."""
        job = self.job
        version = self.window.version[int(np.searchsorted(self.window.time_ms, cut))]
        acting = acted(self._loaded)
        asked, champion = acting, None
        note = f" (compared with the policies that acted, not with {version}, which is gone)"
        policy = self._loaded(version)
        if policy is not None and same_fields(policy.recommender, job.recommender):
            asked, note, champion = policy_of(policy), "", version
        reward_range = job.recommender.reward_range
        compared = [policy_of(candidate), asked]
        found = evaluate_lists(self._held(cut), job.recommender.tasks, reward_range, compared, acting)
        estimator = job.config.estimator
        for name, evaluation in zip(("two_tower", "champion"), found, strict=True):
            self.log.evaluation(name, evaluation)
            estimate = evaluation.estimates[estimator]
            self.progress(
                f"evaluate: {name} estimated at {estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f}) "
                f"by {estimator}, covered {evaluation.covered:.1%}"
            )
        return found[0], found[1], note, champion

    def _loaded(self, version: str) -> RecommenderPolicy | None:
        try:
            return self.store.load(self.job.name, version)
        except SnapshotError:
            return None

    def _held(self, cut: int) -> Iterator[Feedback]:
        for batch in self.archive.batches(self.job.name, cut, self.window.end_ms):
            yield from to_list_feedback(batch, self.job.recommender, self.job.name)

    def _entry_of(
        self,
        candidate: RecommenderPolicy,
        evaluation: ListEvaluation,
        baseline: ListEvaluation,
        verdict: Verdict,
        words: str,
    ) -> Generation:
        estimator = self.job.config.estimator
        return Generation(
            decision_point=self.job.name,
            generation=candidate.generation,
            policy_version=candidate.version,
            oracle="two_tower",
            trained_ms=self.now_ms,
            window_start_ms=self.window.start_ms,
            window_end_ms=self.window.end_ms,
            rows=len(self.window.time_ms),
            reason=self.job.reason,
            promoted=verdict.promoted,
            verdict=words,
            run_id=self.log.run_id or "",
            estimate=evaluation.estimates[estimator].value,
            estimate_error=evaluation.estimates[estimator].standard_error,
            champion_estimate=baseline.estimates[estimator].value,
            difference_low=verdict.difference.low,
            difference_high=verdict.difference.high,
        )

    def _write(
        self, candidate: RecommenderPolicy, trained: Trained, cut: int, learned: int, entry: Generation, work: str
    ) -> str:
        """Keep the candidate, promoted or not, in the order that the module's head gives; return its version."""
        name = self.job.name
        if entry.promoted:
            save_state(trainer_path(self.store.root / name, candidate.version), trained.state, cut, learned)
            self.store.save(candidate)
        tags = {
            WORK_TAG: work,
            VERSION_TAG: candidate.version,
            GENERATION_TAG: json_format.MessageToJson(entry, indent=None),
            "generation": candidate.generation,
            "oracle": "two_tower",
            "gate": "passed" if entry.promoted else "refused",
            "verdict": entry.verdict,
        }
        version = self.registry.register(candidate, entry.run_id, tags).version
        entry.registry_version = version
        self.log.tags(policy_version=candidate.version, registry_version=version)
        if entry.promoted:
            self.registry.promote(name, version)
        else:
            self.registry.challenge(name, version)
        self.ledger.append(entry)
        return version


def _facts(job: ListRetrainJob, window: _Window) -> tuple[dict[str, object], dict[str, object]]:
    """Return parameters and tags of the run."""
    settings = job.config.model_dump(mode="json")
    nested = {key: value for key, value in settings.items() if isinstance(value, dict)}
    params = {key: value for key, value in settings.items() if key not in nested}
    params |= {f"{key}.{inner}": value for key, values in nested.items() for inner, value in values.items()}
    tags: dict[str, object] = {
        "decision_point": job.name,
        "reason": job.reason,
        "window_start_ms": window.start_ms,
        "window_end_ms": window.end_ms,
        "rows": len(window.time_ms),
        "data_digest": window.digest,
        "augmentation_p": job.p,
        "code_version": job.code_version,
    }
    return params, tags
