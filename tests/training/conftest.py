"""A registry for each test: MLflow takes seconds to make a database, so one is made and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.floor import Floor, Past, past
from training.registry import Registry


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}", "template").prepare()
    return path


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Registry:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    return Registry(f"sqlite:///{path}")


@pytest.fixture(scope="session")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return past(1, tmp_path_factory.mktemp("drifted"))


@pytest.fixture(scope="session")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return past(0, tmp_path_factory.mktemp("equal"))


@pytest.fixture
def floor(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Floor:
    # Drawing takes longer than all the rest; the plots of the fixture `promoted` are real.
    monkeypatch.setattr(registry, "log_figures", lambda run_id, figures: None)
    return Floor(tmp_path, registry)
