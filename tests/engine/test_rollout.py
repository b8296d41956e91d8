"""A challenger on trial: what it acts on, what is logged, and that both are replayed bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Challenger
from engine.errors import SnapshotError
from engine.oracles import LinearOracle
from engine.policy import Policy
from engine.records import Decision
from engine.replay import mismatch, shadow_mismatch
from engine.serving.rollout import Rollout, place
from engine.serving.service import DecisionService
from engine.serving.watcher import PolicyWatcher
from engine.store import PolicyStore
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

CHAMPION = make_policy()
CHALLENGER = replace(make_policy(seed=5), generation=CHAMPION.generation + 1)
BROKEN = replace(make_policy(oracle=LinearOracle(np.zeros((1, 1)))), generation=9)
POLICIES = {policy.version: policy for policy in (CHAMPION, CHALLENGER, BROKEN)}


def decided(rollout: Rollout | None, count: int = 400) -> list[Decision]:
    recorder = MemoryRecorder()
    service = DecisionService({NAME: POINT}, {NAME: CHAMPION}, recorder, MemoryObserver())
    service.slot(NAME).rollout = rollout
    for number in range(count):
        service.decide(request(f"d{number}"), TIME_MS).result(timeout=5)
    return [record for record in recorder.records if isinstance(record, Decision)]


def terms(policy: Policy, mode: str, **more: object) -> Rollout:
    return Rollout(policy, Challenger.model_validate({"version": policy.version, "mode": mode, **more}))


def test_a_canary_acts_on_its_share_with_vectors_of_its_own() -> None:
    made = decided(terms(CHALLENGER, "canary", share=0.3))
    acted = Counter(decision.policy_version for decision in made)
    assert set(acted) == {CHAMPION.version, CHALLENGER.version}
    assert 90 <= acted[CHALLENGER.version] <= 150
    for decision in made:
        # The vector is that of the policy that the record names, and the action was drawn from it.
        assert mismatch(decision, POLICIES[decision.policy_version]) == ""
        assert not decision.shadow_policy_version


def test_a_shadow_acts_on_nothing_and_leaves_its_vector() -> None:
    alone, looked_on = decided(None, 50), decided(terms(CHALLENGER, "shadow"), 50)
    for one, other in zip(alone, looked_on, strict=True):
        assert other.policy_version == CHAMPION.version
        assert (list(one.probabilities), one.chosen) == (list(other.probabilities), other.chosen)
        assert other.shadow_policy_version == CHALLENGER.version
        assert list(other.shadow_probabilities) != list(other.probabilities)
        assert sum(other.shadow_probabilities) == pytest.approx(1.0)
        assert mismatch(other, CHAMPION) == ""
        assert shadow_mismatch(other, CHALLENGER) == ""
    spoilt = looked_on[0]
    spoilt.shadow_probabilities[0] += 1e-12
    assert "shadow probabilities" in shadow_mismatch(spoilt, CHALLENGER)


def test_a_shadow_that_fails_costs_nothing() -> None:
    for one, other in zip(decided(None, 5), decided(terms(BROKEN, "shadow"), 5), strict=True):
        assert one == other


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_unit_always_meets_one_policy_and_more_share_only_adds_units(unit: str, other: str) -> None:
    where = place("g2.0-00000000", unit)
    assert 0.0 <= where < 1.0
    assert where == place("g2.0-00000000", unit)
    if unit != other:
        assert where != place("g2.0-00000000", other)


def test_units_are_those_of_the_named_feature() -> None:
    rollout = terms(CHALLENGER, "canary", share=0.5, unit="segment")
    asked = request("d0")
    asked.context.named["segment"].text = "s1"
    assert len({rollout.acts(asked, f"d{number}") for number in range(50)}) == 1
    del asked.context.named["segment"]
    assert len({rollout.acts(asked, f"d{number}") for number in range(50)}) == 2  # without one, each decision is a unit


def test_the_watcher_begins_and_ends_a_trial(tmp_path: Path) -> None:
    store, observer = PolicyStore(tmp_path), MemoryObserver()
    service = DecisionService({NAME: POINT}, {NAME: CHAMPION}, MemoryRecorder(), observer)
    watcher = PolicyWatcher(service, store, observer, interval_s=1.0)
    asked = Challenger(version=CHALLENGER.version, mode="canary", share=0.2)
    store.set_challenger(NAME, asked)
    watcher.look()
    assert service.slot(NAME).rollout is None  # it is not on disk
    assert service.slot(NAME).policy_error
    store.save(CHALLENGER)
    store.set_challenger(NAME, asked.model_copy(update={"share": 0.3}))
    watcher.look()
    found = service.slot(NAME).rollout
    assert found is not None
    assert (found.policy.version, found.terms.share) == (CHALLENGER.version, 0.3)
    assert service.slot(NAME).policy.version == CHAMPION.version
    store.set_challenger(NAME, None)
    watcher.look()
    assert service.slot(NAME).rollout is None


def test_a_damaged_pointer_is_told_and_tries_nothing(tmp_path: Path) -> None:
    store, observer = PolicyStore(tmp_path), MemoryObserver()
    store.save(CHALLENGER)
    (tmp_path / NAME / "CHALLENGER").write_text("{")
    with pytest.raises(SnapshotError, match="leeway rollout stop"):
        store.challenger(NAME)
    service = DecisionService({NAME: POINT}, {NAME: CHAMPION}, MemoryRecorder(), observer)
    PolicyWatcher(service, store, observer, interval_s=1.0).look()
    assert service.slot(NAME).rollout is None
