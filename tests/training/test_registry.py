"""The registry against a real MLflow: what was written can be read with MLflow's own functions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # publishes no types
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal

from engine.errors import RegistryError
from engine.policy import Policy
from engine.records import Feedback, Value
from engine.store import pack_policy
from tests.training.world import NAME, POINT, World, dataset_of, trained
from training.config import LightGBMConfig
from training.evaluation.target import policy_prediction
from training.fit import FITTERS, candidate
from training.mlflow_import import mlflow
from training.registry import CHALLENGER, Registry


@pytest.fixture(scope="module")
def policy() -> Policy:
    return trained(World(seed=1), 300)


def start(registry: Registry) -> str:
    return registry.start_run("test", params={"seed": 3, "max_rows": None}, tags={"reason": "manual"})


def test_a_run_keeps_parameters_tags_metrics_and_plots(registry: Registry, tmp_path: Path) -> None:
    run_id = start(registry)
    registry.log_metrics(run_id, {"linear/dr": 0.5, "linear/dr_low": 0.4}, time_ms=1_700_000_000_000)
    registry.log_figures(run_id, {"estimates": Figure()})
    registry.set_run_tags(run_id, {"outcome": "promoted"})
    registry.end_run(run_id, "FINISHED")

    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_run(run_id)
    assert client.get_experiment_by_name("leeway").experiment_id == run.info.experiment_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3", "max_rows": "None"}
    assert run.data.metrics == {"linear/dr": 0.5, "linear/dr_low": 0.4}
    assert run.data.tags.items() >= {"reason": "manual", "outcome": "promoted"}.items()
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/estimates.png"]
    [plot] = tmp_path.glob("mlartifacts/**/estimates.png")  # beside the database, not in the working directory
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_mlflows_pages_name_a_run_by_its_outcome_and_say_what_a_version_is(registry: Registry, policy: Policy) -> None:
    run_id = start(registry)
    registry.describe_run(run_id, "offers g2 refused", "too few rows")
    made = registry.register(policy, run_id, {"verdict": "refused: too few rows"})

    client = mlflow.MlflowClient(registry.tracking_uri)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.data.tags["mlflow.note.content"]) == ("offers g2 refused", "too few rows")
    assert client.get_model_version("leeway-" + NAME, made.version).description == "refused: too few rows"
    assert f"Policies of {NAME}" in client.get_registered_model("leeway-" + NAME).description


def test_there_is_no_champion_before_the_first_promotion(registry: Registry, policy: Policy) -> None:
    assert registry.champion(NAME) is None
    version = registry.register(policy, start(registry), {})
    assert registry.champion(NAME) is None  # registered, and that is all
    assert registry.aliased(NAME, CHALLENGER) is None
    registry.challenge(NAME, version.version)
    assert registry.champion(NAME) is None
    assert registry.aliased(NAME, CHALLENGER) == version


def test_a_policy_comes_back_as_it_was(registry: Registry, policy: Policy) -> None:
    run_id = start(registry)
    made = registry.register(policy, run_id, {"gate": "passed"})
    registry.promote(NAME, made.version)
    champion = registry.champion(NAME)
    assert champion is not None
    assert (champion.version, champion.run_id) == ("1", run_id)
    assert champion.tags == {"gate": "passed", "policy_digest": policy.digest()}
    assert pack_policy(registry.load(champion)) == pack_policy(policy)


def test_the_same_policy_is_registered_once_and_a_new_one_anew(registry: Registry, policy: Policy) -> None:
    first = registry.register(policy, start(registry), {"gate": "refused"})
    again = registry.register(policy, start(registry), {"gate": "passed"})
    assert again.version == first.version == "1"
    assert again.tags["gate"] == "passed"
    found = registry.find(NAME, "gate", "passed")
    assert found == again
    assert registry.find(NAME, "gate", "refused") is None
    assert registry.register(trained(World(seed=2), 300), start(registry), {}).version == "2"


def test_a_promotion_keeps_the_way_back(registry: Registry, policy: Policy) -> None:
    first = registry.register(policy, start(registry), {})
    second = registry.register(trained(World(seed=2), 300), start(registry), {})
    registry.promote(NAME, first.version)
    registry.promote(NAME, second.version)
    registry.promote(NAME, second.version)  # done again after a crash: nothing changes
    client = mlflow.MlflowClient(registry.tracking_uri)
    aliases = client.get_registered_model("leeway-offers").aliases
    assert {name: str(version) for name, version in aliases.items()} == {"champion": "2", "previous": "1"}


def test_decision_points_do_not_mix(registry: Registry, policy: Policy) -> None:
    registry.promote(NAME, registry.register(policy, start(registry), {}).version)
    assert registry.champion("other") is None
    assert registry.find("other", "policy_digest", policy.digest()) is None


def frame_of(feedback: list[Feedback]) -> pd.DataFrame:
    """Return one row for each offered action, as the archive's columns are called."""

    def raw(value: Value) -> object:
        kind = value.WhichOneof("kind")
        return list(value.numbers.values) if kind == "numbers" else getattr(value, str(kind))

    return pd.DataFrame(
        [
            {"action": action.id}
            | {f"context_{name}": raw(value) for name, value in f.decision.context.named.items()}
            | {f"action_{name}": raw(value) for name, value in action.features.items()}
            for f in feedback
            for action in f.decision.actions
        ]
    )


@pytest.mark.parametrize("oracle", FITTERS)
def test_mlflow_loads_the_champion_and_it_scores_as_the_policy_does(
    registry: Registry, oracle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset_of(World(seed=1).stream(None, 300))
    fitted = FITTERS[oracle](rows, POINT, LightGBMConfig(trees=10), 0)  # type: ignore[index]  # a test's parameter
    policy = candidate(NAME, POINT, fitted, generation=1, created_ms=1)
    registry.promote(NAME, registry.register(policy, start(registry), {}).version)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/leeway-offers@champion")
    feedback = World(seed=9).stream(None, 20)
    scores = model.predict(frame_of(feedback))
    assert_array_equal(scores["score"], policy_prediction(policy, dataset_of(feedback)).mean)
    # A missing feature counts as 0, here as in a request.
    frame = frame_of(feedback).drop(columns=["action_price"])
    zero = frame_of(feedback).assign(action_price=0.0)
    assert_array_equal(model.predict(frame)["score"], model.predict(zero)["score"])
    assert not np.array_equal(model.predict(zero)["score"], scores["score"])


def test_nothing_global_of_mlflow_is_touched(registry: Registry, policy: Policy) -> None:
    before = mlflow.get_tracking_uri()
    registry.promote(NAME, registry.register(policy, start(registry), {}).version)
    registry.champion(NAME)
    assert mlflow.get_tracking_uri() == before != registry.tracking_uri
    assert mlflow.active_run() is None


@pytest.mark.slow  # MLflow waits 20 seconds for a lock, which cannot be set
def test_a_locked_database_is_a_registry_error_with_a_remedy(registry: Registry) -> None:
    registry.prepare()
    other = sqlite3.connect(registry.tracking_uri.removeprefix("sqlite:///"), isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RegistryError, match=r"database is locked.*run the same command again"):
            start(registry)
    finally:
        other.close()
    assert start(registry)  # and when the lock is gone, all is well


def test_a_damaged_database_is_a_registry_error(registry: Registry) -> None:
    registry.prepare()
    Path(registry.tracking_uri.removeprefix("sqlite:///")).write_bytes(b"no database" * 1_000)
    with pytest.raises(RegistryError, match=r"did not start run 'test'.*run the same command again"):
        start(registry)


def test_a_registry_that_is_not_there_is_a_registry_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(RegistryError, match=r"did not prepare the registry: .*see that MLflow is up"):
        Registry(f"sqlite:///{tmp_path}/file/mlflow.db").prepare()


def test_a_server_that_does_not_answer_is_a_registry_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9 did not read the champion"):
        Registry("http://127.0.0.1:9").champion(NAME)


def test_an_artifact_that_is_gone_is_a_registry_error(registry: Registry, policy: Policy) -> None:
    version = registry.register(policy, start(registry), {})
    (Path(version.source) / "artifacts" / "policy.npz").unlink()
    with pytest.raises(RegistryError, match="fetch model version 1"):
        registry.load(version)
