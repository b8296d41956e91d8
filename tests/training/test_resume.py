"""A retraining that is killed in any step goes on with what it had set out to do."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.floor import CONFIG, Floor, Past
from tests.training.world import NAME, POINT, START_MS
from training import resume
from training.archive import ArchiveReader
from training.job import ExitCode, RetrainJob

STEPS = ["extract", "check", "split", "fit", "fit and evaluate", "gate", "register", "promote"]


def killed_in(step: str, floor: Floor, past: Past) -> None:
    """Retrain in a process that is killed when a step begins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which the child does not use
        child = os.fork()
    if child == 0:
        try:

            class Deadly(list[str]):
                def append(self, words: str) -> None:
                    if words.split(":")[0] == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            floor.said = Deadly()
            floor.again(past)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def earlier(past: Past) -> Past:
    """Return the same past at a time when a fifth of its feedback was still to come."""
    times = ArchiveReader(past.archive).read(NAME, POINT, START_MS).time_ms
    return replace(past, now_ms=int(times[len(times) * 4 // 5]))


def check_goes_on(step: str, drifted: Past, floor: Floor) -> None:
    before = earlier(drifted)
    expected = floor.retrain(before, dry_run=True)
    assert expected.exit_code == ExitCode.PROMOTED
    assert expected.policy is not None
    killed_in(step, floor, before)
    # By now there is more feedback, which is none of this retraining's business.
    outcome = floor.again(drifted)
    assert outcome.exit_code == ExitCode.PROMOTED
    [entry] = floor.ledger.entries
    later = step == "extract"  # nothing was set out to do yet
    if not later:
        assert entry.policy_version == expected.policy.version
        assert floor.store.load(NAME, entry.policy_version).digest() == expected.policy.digest()
        assert (entry.rows, entry.window_end_ms) == (expected.rows, before.now_ms)
    assert floor.versions() == 1
    champion = floor.registry.champion(NAME)
    assert champion is not None
    assert champion.tags["policy_version"] == entry.policy_version
    runs = floor.client.search_runs([floor.client.get_experiment_by_name("leeway").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]  # one run, gone on with
    assert ("resumed" in runs[0].data.tags) is not later
    assert not resume.plan_path(RetrainJob(NAME, POINT, CONFIG, floor.directory)).exists()


def test_killed_while_it_registers_it_goes_on_with_the_same_window(drifted: Past, floor: Floor) -> None:
    check_goes_on("register", drifted, floor)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_in_any_step_it_goes_on_with_the_same_window(step: str, drifted: Past, floor: Floor) -> None:
    check_goes_on(step, drifted, floor)


def test_a_plan_is_gone_on_with_by_the_same_retraining_alone(tmp_path: Path) -> None:
    job = RetrainJob(NAME, POINT, CONFIG, tmp_path, "schedule")
    plan = resume.Plan(resume.key_of(job), now_ms=1_000, start_ms=0, end_ms=1_000, calibration_error=0.5, digest="d")
    assert resume.unfinished(job, 2_000) is None
    resume.keep(job, plan)
    assert resume.unfinished(job, 2_000) == plan
    for other in (
        replace(job, reason="drift"),
        replace(job, since_ms=5),
        replace(job, code_version="2"),
        replace(job, config=CONFIG.model_copy(update={"seed": 1})),
    ):
        assert resume.unfinished(other, 2_000) is None
    assert resume.unfinished(job, 1_000 + resume.STALE_MS) is None
    resume.plan_path(job).write_text("{")
    assert resume.unfinished(job, 2_000) is None
