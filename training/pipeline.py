"""One retraining from the archive to the registry: extract, check, split, fit, calibrate, evaluate, gate, register,
promote.

What is written, and in which order, so that a crash at any point is mended by the next run: the plan, with the window
and the digest of its feedback; the policy and its learner's statistics in the policy store; the version in the
registry; the alias ``champion``; the entry in the ledger, which is the sign that all is done and the one that others
follow. What lies between is a function of window, configuration and seed, and is done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from google.protobuf import json_format

from engine.errors import SnapshotError
from engine.features import same_columns
from engine.policy import OracleFailure, Policy
from engine.records import Generation, GenerationStatistics, generation_of
from engine.store import PolicyStore
from training import resume
from training.archive import ArchiveReader
from training.candidates import train_candidates
from training.checks import faults
from training.cluster import connected
from training.config import LOCAL
from training.dataset import Dataset
from training.evaluation.policy import Feedback, PolicyEvaluation, evaluate_logging, evaluate_policy
from training.evaluation.propensity import estimate_propensities
from training.evaluation.reward_model import cross_fit
from training.extract import extracted, keep_reference
from training.fit import Fitted, learn
from training.gate import Verdict, judge
from training.job import ExitCode, Ledger, Outcome, RetrainJob
from training.learner_file import learner_path, save_learner
from training.lock import exclusive
from training.reconcile import last_promoted, reconcile
from training.registry import GENERATION_TAG, Registry
from training.resume import Plan
from training.run_log import CHAMPION, RunLog
from training.stored import Feedbacks, StoredDataset
from training.window_quality import window_quality

Progress = Callable[[str], None]
Hold = Callable[[], str | None]
#: How many unexplained changes there were after the first and before the second time.
Drifts = Callable[[int, int], int]

WORK_TAG = "work"
VERSION_TAG = "policy_version"


def retrain(
    job: RetrainJob,
    *,
    archive: ArchiveReader,
    store: PolicyStore,
    registry: Registry,
    ledger: Ledger,
    now_ms: int,
    progress: Progress = lambda words: None,
    hold: Hold = lambda: None,
    statistics: Sequence[GenerationStatistics] = (),
    drifts: Drifts = lambda start_ms, end_ms: 0,
) -> Outcome:
    """Train, prove and promote a policy, or say why not.

    The held-back feedback is the newest ``hold_back`` share of the window. Nothing was fitted on it: neither the
    candidates, nor the champion, which is the policy that acted when the held-back part began, as it was then.
    What is promoted is what was evaluated; it is not fitted again on all rows. The learner's statistics beside it
    do include the held-back part, so that online learning loses none of the window.

    Doing it again with the same feedback, configuration and code changes nothing. The champion is *not* swapped
    in: ``store.set_current`` is the online learner's, which follows the ledger.

    Parameters
    ----------
    job
        What to do.
    archive
        Where the feedback is.
    store
        Policies on disk: the champion is read from it, and the promoted policy saved.
    registry
        The MLflow to write to.
    ledger
        The generations.
    now_ms
        The time.
    progress
        Called with a line of words at each step.
    hold
        Says why nothing may be promoted now, ``None`` where it may. Asked at the start, and again before a policy that
        passed the gate is written. A dry run does not ask.
    statistics
        What the generations of this decision point did while they acted; by these it is judged whether they oscillate.
    drifts
        Counts the changes inside the window, for the gate.

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
        if job.config.cluster != LOCAL:
            with connected(job.config.cluster):
                progress(f"cluster: {job.config.cluster} answers")  # rather than to learn after minutes that it is gone
        with extracted(job, archive, store, ledger, statistics, now_ms) as (plan, dataset):
            progress(f"extract: {len(dataset)} feedbacks of {job.name}")
            if not job.dry_run:
                keep_reference(job, dataset)
            try:
                with RunLog.open(None if job.dry_run else registry, job, plan, len(dataset), archive.offsets()) as log:
                    plan = replace(plan, run_id=log.run_id or "")
                    if not job.dry_run:
                        resume.keep(job, plan)
                    changes = drifts(plan.start_ms, plan.end_ms)
                    retraining = _Retraining(job, plan, dataset, changes, store, registry, ledger, progress, hold, log)
                    outcome = retraining.outcome()
                    log.outcome(job.name, outcome)
            except Exception:
                # That run is over; what goes on with the plan has one of its own.
                if not job.dry_run:
                    resume.keep(job, replace(plan, run_id=""))
                raise
        if not job.dry_run:
            resume.done(job)
        progress(outcome.words)
        return outcome


@dataclass(frozen=True)
class _Candidate:
    """A fitted policy and what the held-back feedback says of it."""

    policy: Policy
    fitted: Fitted
    evaluation: PolicyEvaluation


@dataclass(frozen=True)
class _Retraining:
    """The steps after extraction, over what they all need."""

    job: RetrainJob
    plan: Plan
    dataset: StoredDataset
    drifts: int
    store: PolicyStore
    registry: Registry
    ledger: Ledger
    progress: Progress
    hold: Hold
    log: RunLog

    def outcome(self) -> Outcome:
        rows, config = len(self.dataset), self.job.config
        held_back = math.ceil(rows * config.hold_back)
        self.log.data(self.dataset, held_back, self.job.point)
        if rows < config.min_events:
            return self._too_few(rows, "in the window", config.min_events, "min_events")
        if held_back < config.gate.min_events:
            return self._too_few(held_back, "held back", config.gate.min_events, "gate.min_events")
        found = faults(self.dataset, self.job.point)
        self._step("check", "; ".join(found) or "nothing is wrong with it")
        if found:
            words = f"the feedback cannot be trained on: {'; '.join(found)}; mend what logs it, or leave that time out"
            return Outcome(ExitCode.REFUSED, words, rows=rows, run_id=self.log.run_id)
        work = self._work()
        done = None if self.job.dry_run else self._done(work)
        if done is not None:
            return done

        data = self._with_propensities()
        train, held = data.part(0, rows - held_back), data.part(rows - held_back, rows).load()
        self._step("split", f"{len(train)} to fit on, the newest {len(held)} held back")
        q_hat = cross_fit(held, self.job.point, model=config.reward_model, lightgbm=config.lightgbm, seed=config.seed)
        feedback = Feedback(held, q_hat, estimated=config.propensities != "logged")
        champion, acting = self._champion(held)
        baseline, note = self._baseline(champion, acting, feedback)
        candidates = self._candidates(train, feedback, champion, self._next_generation(acting))
        evaluations = {CHAMPION: baseline} | {name: c.evaluation for name, c in candidates.items()}
        self.log.evaluations(evaluations)
        quality = window_quality(data, held, q_hat, self.job.point.reward.range, self.drifts)

        self._step("gate", f"{len(candidates)} candidates against {acting or 'the log'}")
        verdicts = {
            name: judge(
                found.evaluation,
                baseline,
                config.gate,
                comparisons=len(candidates),
                reward_range=self.job.point.reward.range,
                window=quality,
                oscillating=self._swings,
            )
            for name, found in candidates.items()
        }
        self.log.verdicts(verdicts, evaluations, quality, self.job)
        # The highest estimate of those that pass: one with a higher estimate may rest on too few effective rows.
        best = max(
            candidates, key=lambda name: (verdicts[name].promoted, candidates[name].evaluation.estimates["dr"].value)
        )
        verdict = verdicts[best]
        words = f"{best} {candidates[best].policy.version} {verdict.summary}{note}"
        entry = self._entry_of(candidates[best], baseline, verdict, words)
        version = None
        holding = self.hold() if verdict.promoted and not self.job.dry_run else None
        if holding is not None:
            return Outcome(
                ExitCode.HELD, f"{words}; but {holding}", rows=rows, held_back=held_back, run_id=self.log.run_id
            )
        if not self.job.dry_run:
            version = self._write(candidates[best], held, entry, verdict, work)
        return Outcome(
            ExitCode.PROMOTED if verdict.promoted else ExitCode.REFUSED,
            words,
            rows=rows,
            held_back=held_back,
            champion=None if champion is None else champion.version,
            estimates={name: evaluation.estimates for name, evaluation in evaluations.items()},
            verdict=verdict,
            policy=candidates[best].policy,
            learner=candidates[best].fitted.learner,
            generation=entry,
            run_id=self.log.run_id,
            registry_version=version,
        )

    def _step(self, name: str, words: str) -> None:
        self.log.step(name)
        self.progress(f"{name}: {words}")

    def _too_few(self, found: int, where: str, least: int, setting: str) -> Outcome:
        words = f"{found} feedbacks {where} of at least {least} ({setting}); wait for more, or widen the window"
        return Outcome(ExitCode.NOT_ENOUGH_DATA, words, rows=len(self.dataset), run_id=self.log.run_id)

    def _work(self) -> str:
        """Return what decides the result: data, configuration, code and what the gate is told; not the hour."""
        job = self.job
        parts = [job.name, job.point.model_dump(mode="json"), job.config.model_dump(mode="json"), job.code_version]
        found = [self.plan.damped, self.plan.calibration_error, self.drifts, self._swings]
        return hashlib.sha256(json.dumps([self.plan.digest, *parts, *found], sort_keys=True).encode()).hexdigest()

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
            f"nothing to do: the same feedback was trained on before (version {version.version}: {entry.verdict})",
            rows=len(self.dataset),
            generation=entry,
            run_id=self.log.run_id,
            registry_version=version.version,
            done_before=True,
        )

    @property
    def _swings(self) -> bool:
        """Whether generations oscillate, and nothing is done against it."""
        return self.plan.oscillating and not self.plan.damped

    def _with_propensities(self) -> Feedbacks:
        """Return the window with the propensities that are configured: as logged, or estimated."""
        config = self.job.config
        if config.propensities == "logged":
            return self.dataset
        rows = self.dataset.load()
        estimated = estimate_propensities(rows, config.propensities, config.propensity_calibration, seed=config.seed)
        return replace(rows, probabilities=estimated)

    def _champion(self, held: Dataset) -> tuple[Policy | None, str]:
        """Return the policy that acted when the held-back part began, if it can be had, and its version."""
        acted = held.policy_version
        tried = self.store.challenger(self.job.name)
        if tried is not None and (acted != tried.version).any():
            acted = acted[acted != tried.version]  # a canary is no champion
        version = str(acted[0])
        try:
            policy = self.store.load(self.job.name, version)
        except SnapshotError:
            return None, version
        same = same_columns(policy.point, self.job.point)
        return (policy if same else None), version

    def _baseline(self, champion: Policy | None, version: str, feedback: Feedback) -> tuple[PolicyEvaluation, str]:
        """Return the evaluation that candidates are held against, and a note where it is not the champion's."""
        if champion is not None:
            try:
                return evaluate_policy(champion, feedback), ""
            except OracleFailure as error:
                why = f"its oracle failed: {error}"
        elif not version:  # imported, from a log that names no policy
            return evaluate_logging(feedback), " (compared with what was logged)"
        else:
            why = "its file is gone, or it has other features"
        return evaluate_logging(feedback), f" (compared with the policies that acted, not with {version}: {why})"

    def _candidates(
        self, train: Feedbacks, feedback: Feedback, acting: Policy | None, generation: int
    ) -> dict[str, _Candidate]:
        found: dict[str, _Candidate] = {}
        self._step("fit", "damped, for the generations oscillate" if self.plan.damped else "from scratch")
        for trained in train_candidates(self.job, self.plan, train, acting, generation, self.log):
            policy = trained.policy
            self._step("evaluate", f"{trained.name} {policy.version}, fitted on {trained.fitted.rows}")
            found[trained.name] = _Candidate(policy, trained.fitted, evaluate_policy(policy, feedback))
            estimate = found[trained.name].evaluation.estimates["dr"]
            self.progress(
                f"fit and evaluate: {trained.name} {policy.version} estimated at {estimate.value:.4f} "
                f"({estimate.low:.4f} to {estimate.high:.4f})"
            )
        return found

    def _next_generation(self, acting: str) -> int:
        """Return one more than any generation that acts, serves, is tried or was promoted."""
        current = self.store.current(self.job.name)
        tried = self.store.challenger(self.job.name)
        versions = (acting, current, None if tried is None else tried.version)
        known = [_generation(version) for version in versions if version is not None]
        return max(*known, last_promoted(self.ledger, self.job.name), 0) + 1

    def _entry_of(self, best: _Candidate, champion: PolicyEvaluation, verdict: Verdict, words: str) -> Generation:
        return Generation(
            decision_point=self.job.name,
            generation=best.policy.generation,
            policy_version=best.policy.version,
            oracle=best.policy.oracle.kind,
            trained_ms=self.plan.now_ms,
            window_start_ms=self.plan.start_ms,
            window_end_ms=self.plan.end_ms,
            rows=len(self.dataset),
            reason=self.job.reason,
            promoted=verdict.promoted,
            verdict=words,
            run_id=self.log.run_id or "",
            estimate=best.evaluation.estimates["dr"].value,
            estimate_error=best.evaluation.estimates["dr"].standard_error,
            champion_estimate=champion.estimates["dr"].value,
            difference_low=verdict.difference.low,
            difference_high=verdict.difference.high,
        )

    def _write(self, best: _Candidate, held: Dataset, entry: Generation, verdict: Verdict, work: str) -> str:
        """Keep the candidate, promoted or not, in the order that the module's head gives; return its version."""
        policy, name = best.policy, self.job.name
        self._step("register", policy.version)
        if verdict.promoted:
            learner = best.fitted.learner
            if learner is not None:
                # The policy stays as it was evaluated; what is learned next goes on from the end of the window.
                learn(learner, held)
                save_learner(learner_path(self.store, name, policy.version), learner)
            self.store.save(policy)
        tags = {
            WORK_TAG: work,
            VERSION_TAG: policy.version,
            GENERATION_TAG: json_format.MessageToJson(entry, indent=None),
            "generation": policy.generation,
            "oracle": policy.oracle.kind,
            "gate": "passed" if verdict.promoted else "refused",
            "verdict": entry.verdict,
        }
        version = self.registry.register(policy, entry.run_id, tags).version
        entry.registry_version = version
        self.log.tags(policy_version=policy.version, registry_version=version)
        if verdict.promoted:
            self._step("promote", f"version {version}")
            self.registry.promote(name, version)
        else:
            self.registry.challenge(name, version)
        self.ledger.append(entry)
        return version


def _generation(version: str) -> int:
    try:
        return generation_of(version)
    except ValueError:
        return 0  # feedback that was logged by another system
