"""A retraining that is done twice, at the same time as another, or cut off at any point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import RegistryError, SnapshotError
from engine.policy import Policy
from engine.records import Generation
from engine.store import PolicyStore
from tests.training.floor import CONFIG, Floor, Past
from tests.training.world import NAME
from training.job import ExitCode
from training.lock import exclusive
from training.reconcile import reconcile
from training.registry import RegisteredVersion


def test_a_second_retraining_at_the_same_time_is_turned_away(drifted: Past, floor: Floor) -> None:
    with exclusive(floor.directory / f"retrain-{NAME}.lock") as mine:
        assert mine
        assert floor.retrain(drifted).exit_code == ExitCode.LOCKED
    assert floor.client.search_experiments(filter_string="name = 'leeway'") == []
    assert floor.retrain(drifted, CONFIG.model_copy(update={"min_events": 9_999})).exit_code != ExitCode.LOCKED


def test_doing_it_again_changes_nothing(drifted: Past, floor: Floor) -> None:
    first = floor.retrain(drifted)
    again = floor.again(replace(drifted, now_ms=drifted.now_ms + 60_000))  # an hour later, with nothing new
    assert again.exit_code == ExitCode.PROMOTED
    assert again.words.startswith("nothing to do")
    assert again.registry_version == first.registry_version
    assert (floor.versions(), len(floor.ledger.entries)) == (1, 1)
    assert floor.client.get_run(again.run_id).data.tags["words"].startswith("nothing to do")


def test_a_generation_is_newer_than_any_that_was_promoted(drifted: Past, floor: Floor) -> None:
    floor.ledger.append(Generation(decision_point=NAME, generation=7, policy_version="g7.0-00000000", promoted=True))
    floor.ledger.append(Generation(decision_point=NAME, generation=9, policy_version="g9.0-00000000", promoted=False))
    outcome = floor.retrain(drifted, dry_run=True)
    assert outcome.policy is not None
    assert outcome.policy.generation == 8


def failing_once(target: object, method: str, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Make a method raise at its next call, before or after it has done its work, as a crash would."""
    original: Callable[..., object] = getattr(target, method)

    def crash(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(target, method, original)
        if after:
            original(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(target, method, crash)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("part", "method"),
    [("store", "save"), ("registry", "register"), ("registry", "promote"), ("ledger", "append")],
)
def test_a_crash_at_any_point_is_mended_by_the_next_run(
    drifted: Past,
    floor: Floor,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    method: str,
    after: bool,
) -> None:
    expected = floor.retrain(drifted, dry_run=True).policy
    assert expected is not None
    failing_once(getattr(floor, part), method, monkeypatch, after=after)
    with pytest.raises(KeyboardInterrupt):
        floor.again(drifted)
    assert floor.again(drifted).exit_code == ExitCode.PROMOTED
    assert floor.versions() == 1
    champion = floor.registry.champion(NAME)
    assert champion is not None
    assert champion.tags["policy_version"] == expected.version
    [entry] = floor.ledger.entries
    assert (entry.policy_version, entry.promoted, entry.registry_version) == (expected.version, True, "1")
    assert floor.store.load(NAME, expected.version).digest() == expected.digest()


def test_a_run_that_fails_is_marked_as_failed(drifted: Past, floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(policy: Policy) -> Path:
        raise SnapshotError("no space left on device")

    monkeypatch.setattr(floor.store, "save", full)
    with pytest.raises(SnapshotError, match="no space left"):
        floor.again(drifted)
    [run] = floor.client.search_runs([floor.client.get_experiment_by_name("leeway").experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "SnapshotError: no space left on device"


def test_a_champion_whose_policy_file_was_lost_is_restored_with_its_ledger_entry(
    drifted: Past, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_once(floor.ledger, "append", monkeypatch, after=False)
    with pytest.raises(KeyboardInterrupt):
        floor.retrain(drifted)
    new_disk = PolicyStore(floor.directory / "restored")
    entry = reconcile(NAME, store=new_disk, registry=floor.registry, ledger=floor.ledger)
    assert entry is not None
    assert new_disk.load(NAME, entry.policy_version).version == entry.policy_version
    assert reconcile(NAME, store=new_disk, registry=floor.registry, ledger=floor.ledger) is None


def test_a_rollback_is_left_alone(drifted: Past, floor: Floor) -> None:
    floor.retrain(drifted)
    floor.ledger.append(Generation(decision_point=NAME, generation=3, policy_version="g3.0-00000000", promoted=True))
    # The alias still names generation 2, as after a rollback from 3.
    assert reconcile(NAME, store=floor.store, registry=floor.registry, ledger=floor.ledger) is None
    assert len(floor.ledger.entries) == 2


def test_a_registry_that_is_away_stops_it_before_anything_is_written(
    drifted: Past, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(point: str) -> RegisteredVersion | None:
        raise RegistryError("registry sqlite:///x did not answer")

    monkeypatch.setattr(floor.registry, "champion", away)
    with pytest.raises(RegistryError):
        floor.retrain(drifted)
    assert floor.store.versions(NAME) == [drifted.champion.version]
    assert floor.ledger.entries == []
