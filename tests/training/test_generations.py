from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from engine.policy import Policy
from engine.records import Generation
from tests.training.swinging import books, swinging
from tests.training.world import NAME, POINT, START_MS, World, archive_of, trained
from training.archive import ArchiveReader
from training.config import DampingConfig, RetrainingConfig
from training.dataset import Dataset
from training.generations import reference_set, state_of, table
from training.job import RetrainJob
from training.planning import make_plan
from training.reference_file import freeze_reference, read_reference

CONFIG = DampingConfig()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    world = World(seed=3)
    directory = archive_of(world.stream(trained(World(seed=4), 500), 600), tmp_path_factory.mktemp("rows"))
    return ArchiveReader(directory).read(NAME, POINT, START_MS)


def test_a_ledger_is_judged_as_it_grew_and_damped_for_so_many_generations() -> None:
    rewards = np.array(swinging(40))
    error = np.full(40, 0.003)

    def state(n: int, when: Literal["declared", "always", "never"] = "declared") -> tuple[int | None, bool]:
        config = DampingConfig(generations=5, when=when)
        found = state_of(range(1, n + 1), rewards[:n], error[:n], None, config)
        return found.declared, found.damped

    assert state(8) == (None, False)
    assert state(9) == (9, True)
    assert state(13) == (9, True)
    assert state(14) == (None, False)  # over; the ledger begins anew
    assert state(23) == (23, True)
    assert state(9, "never") == (9, False)
    assert state(3, "always") == (None, True)


def test_the_table_has_estimate_and_reward_beside_each_other() -> None:
    rewards = [0.7, 0.80, 0.82]
    entries = [
        Generation(
            generation=1, policy_version="g1.0-00000000", promoted=True, estimate=0.801, estimate_error=0.01, run_id="a"
        ),
        Generation(generation=2, policy_version="g2.0-ffffffff", promoted=False, estimate=0.99, run_id="b"),
        Generation(
            generation=2, policy_version="g2.0-00000000", promoted=True, estimate=0.90, estimate_error=0.01, run_id="c"
        ),
    ]
    found = table(entries, books(rewards), CONFIG)
    zero, one, two = found.rows
    assert (zero.kept, one.kept, two.kept) == ("", "as estimated", "below")
    assert math.isnan(zero.estimate)
    assert two.policy_version == "g2.0-00000000"
    low, high = two.interval
    assert low < 0.82 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.82 * 0.18 / 10_000), rel=0.01)
    assert found.state.judged is None


def test_distances_are_total_variation_on_the_same_requests(rows: Dataset) -> None:
    one, two = trained(World(seed=8), 300), trained(World(seed=9, shift=1), 300)
    policies: dict[str, Policy] = {"a": one, "b": two, "c": one}
    entries = [Generation(generation=g, policy_version=v, promoted=True) for g, v in ((1, "a"), (2, "b"), (3, "c"))]
    found = table(entries, books([0.7, 0.8, 0.8, 0.8]), CONFIG, policies.get, reference_set(rows))
    assert found.rows[3].distances[1] == 0.0
    assert 0.1 < found.rows[3].distances[2] < 1.0
    assert found.rows[3].distances[2] == pytest.approx(found.rows[2].distances[1])
    assert 0 not in found.rows[3].distances  # the policy before any training is not kept


def test_the_reference_set_stays_when_feedback_comes(rows: Dataset, tmp_path: Path) -> None:
    before, after = (reference_set(rows.rows(slice(n)), 100) for n in (550, 600))
    assert len(set(before.decision_id) & set(after.decision_id)) > 80
    path = tmp_path / "reference.npz"
    freeze_reference(path, rows.rows(slice(100)))
    assert not path.exists()  # too little yet
    freeze_reference(path, rows)
    widths = rows.context.shape[1], rows.action.shape[1]
    frozen = read_reference(path, *widths)
    assert frozen is not None
    assert frozen.digest() == reference_set(rows).digest()
    assert read_reference(path, widths[0] + 1, widths[1]) is None
    path.write_bytes(b"PK")
    assert read_reference(path, *widths) is None


def test_a_retraining_of_a_ledger_that_oscillates_is_damped_and_looks_further_back(tmp_path: Path) -> None:
    config = RetrainingConfig(window=1_000, damping=DampingConfig(blend=4))
    job = RetrainJob(NAME, POINT, config, tmp_path, "schedule")
    acted = books([0.7, *swinging(12)])
    entries = [Generation(generation=g, policy_version=f"g{g}.0-00000000", promoted=True) for g in range(1, 13)]
    plan = make_plan(job, entries, acted, lambda _: None, None, now_ms=13_000)
    assert (plan.oscillating, plan.damped, plan.start_ms, plan.end_ms) == (True, True, 9_000, 13_000)
    # Feedback from before a known change is never blended in.
    changed = RetrainJob(NAME, POINT, config, tmp_path, "drift", since_ms=12_500)
    assert make_plan(changed, entries, acted, lambda _: None, None, 13_000).start_ms == 12_500
    still = make_plan(job, entries, books([0.7, *swinging(12, 0.0)]), lambda _: None, None, 13_000)
    assert (still.oscillating, still.damped, still.start_ms) == (False, False, 12_000)
