"""Promotion and rollback by hand, and the test that asks for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.policy import Policy
from engine.records import Generation, GenerationStatistics
from tests.training.floor import CONFIG, Floor, Past
from tests.training.test_recovery import failing_once
from tests.training.world import NAME
from training.config import GateConfig, RollbackConfig
from training.disappointment import disappointment
from training.job import ExitCode
from training.learner_file import learner_path
from training.lock import exclusive
from training.promotion import Floor as Kept
from training.promotion import promote, rollback
from training.reconcile import reconcile
from training.registry import CHALLENGER, CHAMPION, PREVIOUS

#: Trained on a little less, and let through whatever it is.
ANOTHER = CONFIG.model_copy(update={"gate": GateConfig(margin=-1.0), "hold_back": 0.3})


def kept(floor: Floor) -> Kept[Policy]:
    return Kept(
        NAME,
        floor.directory,
        floor.store,
        floor.registry,
        floor.ledger,
        lambda version: learner_path(floor.store, NAME, version),
    )


def two_generations(floor: Floor, drifted: Past) -> tuple[str, str]:
    """Promote two generations; return their policy versions."""
    first = floor.retrain(drifted)
    second = floor.retrain(replace(drifted, now_ms=drifted.now_ms + 1), ANOTHER)
    assert first.policy is not None
    assert second.policy is not None
    assert second.exit_code == ExitCode.PROMOTED, second.words
    return first.policy.version, second.policy.version


def test_a_rollback_brings_the_champion_before_back_as_a_new_generation(drifted: Past, floor: Floor) -> None:
    first, second = two_generations(floor, drifted)
    dry = rollback(kept(floor), 5_000, dry_run=True)
    assert (dry.exit_code, floor.versions(), len(floor.ledger.entries)) == (ExitCode.PROMOTED, 2, 2)

    move = rollback(kept(floor), 5_000)
    assert move.exit_code == ExitCode.PROMOTED
    entry = floor.ledger.entries[-1]
    assert (entry.generation, entry.reason, entry.promoted, entry.registry_version) == (4, "rollback", True, "3")
    assert entry.verdict == f"rolled back by hand: version 1, {first}"
    # The window stays that of what was trained: what came since was not learned from.
    assert entry.window_end_ms == floor.ledger.entries[0].window_end_ms
    again, before = floor.store.load(NAME, entry.policy_version), floor.store.load(NAME, first)
    arrays = [policy.oracle.arrays() for policy in (again, before)]
    assert all(np.array_equal(arrays[0][key], arrays[1][key]) for key in arrays[0])
    assert (again.generation, again.learned) == (4, before.learned)
    assert learner_path(floor.store, NAME, again.version).exists()  # online learning goes on from there
    champion = floor.registry.aliased(NAME, CHAMPION)
    assert champion is not None
    assert champion.version == "3"
    left = floor.registry.version(NAME, "2")
    assert left is not None
    assert left.tags["rolled_back"] == "rolled back by hand"
    # There is no way back to what was left but by name.
    assert floor.registry.aliased(NAME, PREVIOUS) is None
    nothing = rollback(kept(floor), 6_000)
    assert nothing.exit_code == ExitCode.NOT_ENOUGH_DATA
    assert "--generation" in nothing.words
    named = rollback(kept(floor), 6_000, generation=3)
    assert named.generation is not None
    assert (named.generation.generation, named.words.split()[-1]) == (5, second)


def test_a_rollback_that_was_cut_off_is_finished_by_the_next_run(
    drifted: Past, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_generations(floor, drifted)
    failing_once(floor.ledger, "append", monkeypatch, after=False)
    with pytest.raises(KeyboardInterrupt):
        rollback(kept(floor), 5_000)
    entry = reconcile(NAME, store=floor.store, registry=floor.registry, ledger=floor.ledger)
    assert entry is not None
    assert (entry.generation, entry.reason) == (4, "rollback")


def test_what_the_gate_refused_is_promoted_by_force_alone(equal: Past, floor: Floor) -> None:
    refused = floor.retrain(equal)
    assert refused.exit_code == ExitCode.REFUSED
    move = promote(kept(floor), 5_000)
    assert move.exit_code == ExitCode.REFUSED
    assert "--force" in move.words
    held = promote(kept(floor), 5_000, hold=lambda: "alarm a holds promotions")
    assert held.exit_code == ExitCode.HELD
    forced = promote(kept(floor), 5_000, force=True)
    assert forced.exit_code == ExitCode.PROMOTED
    entry = floor.ledger.entries[-1]
    assert (entry.reason, entry.promoted, entry.registry_version) == ("promote", True, "1")
    assert refused.policy is not None
    assert entry.policy_version == refused.policy.version  # it had never served, and keeps its name
    assert promote(kept(floor), 5_000, force=True).words == "nothing to do: version 1 is champion"
    assert promote(kept(floor), 5_000, version="9").exit_code == ExitCode.NOT_ENOUGH_DATA
    assert floor.registry.aliased(NAME, CHALLENGER) is not None


def test_nothing_moves_while_a_retraining_runs(floor: Floor) -> None:
    with exclusive(floor.directory / f"retrain-{NAME}.lock"):
        assert rollback(kept(floor), 1).exit_code == ExitCode.LOCKED
        assert promote(kept(floor), 1).exit_code == ExitCode.LOCKED


def acting(reason: str = "schedule") -> list[Generation]:
    return [
        Generation(generation=1, promoted=True, estimate=0.9, estimate_error=0.001, run_id="r"),
        Generation(generation=2, promoted=True, estimate=0.6, estimate_error=0.01, reason=reason, run_id="r"),
        Generation(generation=3, promoted=False, estimate=0.9, estimate_error=0.01, run_id="r"),
    ]


def book(feedback: int, reward: float) -> list[GenerationStatistics]:
    return [GenerationStatistics(generation=2, feedback=feedback, reward_sum=reward * feedback)]


def test_a_promotion_that_earns_less_than_estimated_is_found_wanting() -> None:
    words = disappointment(acting(), book(3_000, 0.50), RollbackConfig(), (0.0, 1.0))
    assert words is not None
    assert words.startswith("generation 2 earned 0.5000 over 3000 feedbacks")
    assert disappointment(acting(), book(50, 0.50), RollbackConfig(), (0.0, 1.0)) is None  # too few to say
    assert disappointment(acting(), book(3_000, 0.50), RollbackConfig(bound=0.1), (0.0, 1.0)) is None
    assert disappointment(acting(), book(3_000, 0.59), RollbackConfig(), (0.0, 1.0)) is None
    assert disappointment(acting("rollback"), book(3_000, 0.1), RollbackConfig(), (0.0, 1.0)) is None
    assert disappointment([], [], RollbackConfig(), (0.0, 1.0)) is None


def test_a_promotion_that_keeps_its_word_is_undone_no_more_often_than_stated() -> None:
    """It earns exactly the lower bound of its estimate, and is looked at after every tenth feedback."""
    rng = np.random.default_rng(0)
    config = RollbackConfig(error=0.1)
    least = 0.6 - 1.6449 * 0.01
    undone = 0
    for _ in range(100):
        sums = np.cumsum(rng.random(2_000) < least)
        looks = (book(n, float(sums[n - 1]) / n) for n in range(10, 2_001, 10))
        undone += any(disappointment(acting(), look, config, (0.0, 1.0)) for look in looks)
    assert undone <= 18  # 99 % point of the binomial with 100 and 0.1
