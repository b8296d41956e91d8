"""Boosted trees on a cluster: as good as on one machine, and a cluster that is not there stops everything cleanly."""

from __future__ import annotations

import builtins
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import training.cluster
from engine.errors import ConfigError
from engine.oracles import LightGBMOracle
from streaming.cli import main
from tests.training.floor import Floor, Past
from tests.training.world import NAME, POINT, START_MS, World, archive_of
from training.archive import ArchiveReader, ArchiveWriter
from training.cluster import ClusterError, connected, fit_on_cluster
from training.config import DampingConfig, LightGBMConfig, RetrainingConfig
from training.damping import row_weights, weighing_of
from training.dataset import Dataset
from training.fit import fit_lightgbm
from training.job import ExitCode
from training.stored import StoredDataset

TREES = LightGBMConfig(trees=40)
#: By how much the held-out squared error of a cluster's model may exceed that of one machine.
WORSE = 0.003


def nobody() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.cluster, "CONNECT_S", 0.5)


def test_a_dead_scheduler_ends_it_before_anything_is_begun(drifted: Past, floor: Floor, impatient: None) -> None:
    address = nobody()
    config = RetrainingConfig(min_events=1_000, oracles=("lightgbm",), cluster=address)
    with pytest.raises(ClusterError, match=rf"no Dask scheduler answers at {address}.*retraining\.cluster to local"):
        floor.retrain(drifted, config)
    assert floor.ledger.entries == []
    assert floor.versions() == 0
    assert floor.registry.champion(NAME) is None
    assert sorted(path.name for path in floor.directory.glob("retrain-*")) == [f"retrain-{NAME}.lock"]


def test_the_command_line_says_so_and_ends_with_another_status_than_0(tmp_path: Path, impatient: None) -> None:
    address = nobody()
    point = {"context": {"age": {"type": "number"}}, "retraining": {"cluster": address}}
    config = tmp_path / "leeway.yaml"
    config.write_text(yaml.safe_dump({"version": 1, "data_dir": str(tmp_path), "decision_points": {NAME: point}}))
    found = CliRunner().invoke(main, ["retrain", "--config", str(config)])
    assert found.exit_code == ExitCode.RETRYABLE, found.output
    assert f"no Dask scheduler answers at {address}" in found.output
    assert "Traceback" not in found.output


def test_without_dask_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in ("dask", "distributed"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("dask", "distributed")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"dask.* is not installed.*leeway\[dask\]"), connected("tcp://127.0.0.1:1"):
        pass


@pytest.mark.parametrize("wrong", ["", "here", "http://127.0.0.1:8786", "tcp://"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="cluster"):
        RetrainingConfig(cluster=wrong)


def test_estimated_propensities_do_not_go_with_a_cluster() -> None:
    with pytest.raises(ValueError, match="set propensities to logged"):
        RetrainingConfig(cluster="tcp://127.0.0.1:8786", propensities="logistic")


def test_a_worker_weighs_its_rows_as_one_machine_does(drifted: Past) -> None:
    damping = DampingConfig(weight_cap=1.5, blend_decay=0.5, balance_classes=True)
    rows = ArchiveReader(drifted.archive).read(NAME, POINT, START_MS)
    rule = weighing_of(rows, damping, (0.0, 1.0))
    some = np.arange(0, len(rows), 3)
    assert rule.weights(rows.rows(some)).tolist() == row_weights(rows, damping, (0.0, 1.0))[some].tolist()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as cluster:
        yield cluster.scheduler_address


def error(oracle: LightGBMOracle, vocabulary: tuple[str, ...], held: Dataset) -> float:
    predicted = oracle.predict(held.chosen_matrix(), held.codes(vocabulary)[held.chosen_flat])
    return float(((predicted - held.reward) ** 2).mean())


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    directory = tmp_path_factory.mktemp("cluster")
    rows = World(seed=5).stream(None, 4_000)
    archive_of(rows[:1_000], directory / "archive")
    with ArchiveWriter(directory / "archive", {NAME: POINT}) as writer:
        for begin in range(1_000, 4_000, 500):
            assert writer.append(rows[begin : begin + 500], {0: begin + 500}) == []
    return ArchiveReader(directory / "archive").store(NAME, POINT, START_MS, directory=directory / "window")


@pytest.mark.slow
@pytest.mark.parametrize("weighed", [False, True])
def test_the_model_of_two_workers_is_as_good(weighed: bool, window: StoredDataset, scheduler: str) -> None:
    train, held = window.part(100, 2_937), window.part(2_937, 4_000).load()  # neither end is that of a file
    damping = DampingConfig(weight_cap=1.5) if weighed else None
    weighing = None if damping is None else weighing_of(train, damping, (0.0, 1.0))
    weights = None if damping is None else row_weights(train, damping, (0.0, 1.0))
    found = error(*fit_on_cluster(train, POINT, TREES, 0, weighing, scheduler), held)
    expected = error(*fit_lightgbm(train, POINT, TREES, 0, weights), held)
    assert found <= expected + WORSE
    assert found < 0.8 * float(held.reward.var())  # and both have learned something


@pytest.mark.slow
def test_a_retraining_on_a_cluster_is_promoted_like_any_other(drifted: Past, floor: Floor, scheduler: str) -> None:
    config = RetrainingConfig(min_events=1_000, oracles=("lightgbm",), lightgbm=TREES, cluster=scheduler)
    outcome = floor.retrain(drifted, config)
    assert outcome.exit_code == ExitCode.PROMOTED, outcome.words
    assert outcome.policy is not None
    assert floor.client.get_run(outcome.run_id).data.params["cluster"] == scheduler
    assert floor.store.load(NAME, outcome.policy.version).digest() == outcome.policy.digest()


@pytest.mark.slow
def test_an_archive_that_workers_do_not_find_is_an_error(window: StoredDataset, scheduler: str, tmp_path: Path) -> None:
    (tmp_path / "_manifest.json").write_bytes((window.origin.directory / "_manifest.json").read_bytes())
    elsewhere = replace(window, origin=replace(window.origin, directory=tmp_path))
    with pytest.raises(ClusterError, match=rf"the fit on {scheduler} failed.*the workers need {tmp_path}"):
        fit_on_cluster(elsewhere, POINT, TREES, 0, None, scheduler)
