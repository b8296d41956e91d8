"""The MLflow registry: runs of retrainings, versions of policies, and the alias ``champion``.

Everything goes through ``MlflowClient``: no global tracking URI, experiment or active run is touched, so that
a process may use MLflow for something else as well.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.config import Feature, NumberFeature, TextFeature
from engine.errors import RegistryError
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.store import pack_recommender
from engine.store import Versioned, pack_policy, read_policy
from training.mlflow_import import mlflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"
DIGEST_TAG = "policy_digest"
#: A version's entry for the ledger, as JSON.
GENERATION_TAG = "ledger_entry"

P = TypeVar("P", bound=Versioned)

_SQLITE = "sqlite:///"
_POLICY_FILE = "policy.npz"
_REQUIREMENTS = ("leeway", "numpy", "pandas", "lightgbm", "mlflow")


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a decision point's model.

    Attributes
    ----------
    version
        As MLflow counts them, from ``"1"``.
    run_id
        The retraining that made it.
    source
        Where its artefacts lie.
    tags
        What was written to it: generation, policy version and digest, verdict.
    """

    version: str
    run_id: str
    source: str
    tags: Mapping[str, str]


class Registry:
    """Runs, model versions and aliases of all decision points in one MLflow.

    Parameters
    ----------
    tracking_uri
        Of MLflow: ``sqlite:////path/mlflow.db`` or a server's ``http://...``.
    experiment
        Under which runs are kept; made if need be.
    model_prefix
        The registered model of a decision point is this and its name.

    Every method raises ``RegistryError`` where MLflow cannot be reached or refuses.
    """

    def __init__(self, tracking_uri: str, experiment: str = "leeway", model_prefix: str = "leeway-") -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.model_prefix = model_prefix

    def prepare(self) -> None:
        """Make the database and the experiment ahead of time: a fresh SQLite file takes seconds."""
        with self._asking("prepare the registry"):
            assert self._experiment_id

    def model_name(self, point: str) -> str:
        """Return the registered model of a decision point."""
        return self.model_prefix + point

    # Runs

    def start_run(
        self, name: str, *, params: Mapping[str, object], tags: dict[str, object], parent: str | None = None
    ) -> str:
        """Open a run, below another one where ``parent`` says so, and return its id."""
        above = {} if parent is None else {"mlflow.parentRunId": parent}
        with self._asking(f"start run {name!r}"):
            run_id: str = self._client.create_run(
                self._experiment_id, run_name=name, tags={key: str(value) for key, value in (tags | above).items()}
            ).info.run_id
            self._client.log_batch(
                run_id, params=[mlflow.entities.Param(key, str(value)) for key, value in params.items()]
            )
            return run_id

    def find_run(self, tags: Mapping[str, str]) -> str | None:
        """Return the id of the newest run with all these tags, or ``None``."""
        with self._asking("search runs"):
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            found = self._client.search_runs([self._experiment_id], filter_string=wanted, max_results=1)
            return str(found[0].info.run_id) if found else None

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, time_ms: int) -> None:
        """Add numbers to a run."""
        with self._asking(f"log metrics of run {run_id}"):
            self._client.log_batch(
                run_id, metrics=[mlflow.entities.Metric(key, float(v), time_ms, 0) for key, v in metrics.items()]
            )

    def log_figures(self, run_id: str, figures: Mapping[str, Figure]) -> None:
        """Add plots to a run, as ``plots/<name>.png``."""
        with self._asking(f"log plots of run {run_id}"):
            for name, figure in figures.items():
                self._client.log_figure(run_id, figure, f"plots/{name}.png")

    def log_texts(self, run_id: str, texts: Mapping[str, str]) -> None:
        """Add files of text to a run, by their names."""
        with self._asking(f"log files of run {run_id}"):
            for name, text in texts.items():
                self._client.log_text(run_id, text, name)

    def set_run_tags(self, run_id: str, tags: Mapping[str, object]) -> None:
        """Write tags to a run."""
        with self._asking(f"tag run {run_id}"):
            self._client.log_batch(
                run_id, tags=[mlflow.entities.RunTag(key, str(value)) for key, value in tags.items()]
            )

    def describe_run(self, run_id: str, name: str, words: str) -> None:
        """Name a run and say what came of it, where MLflow's pages show that."""
        with self._asking(f"describe run {run_id}"):
            self._client.update_run(run_id, name=name)
            self._client.set_tag(run_id, "mlflow.note.content", words)

    def end_run(self, run_id: str, status: Literal["FINISHED", "FAILED"]) -> None:
        """Close a run."""
        with self._asking(f"end run {run_id}"):
            self._client.set_terminated(run_id, status)

    # Versions

    def register(
        self, policy: Policy | RecommenderPolicy, run_id: str, tags: Mapping[str, object]
    ) -> RegisteredVersion:
        """Return the version that holds this policy, made now unless one with its digest is already there.

        The tags are written in either case; the tag ``verdict`` is also the description of a version made now.
        """
        texts = {key: str(value) for key, value in tags.items()} | {DIGEST_TAG: policy.digest()}
        found = self.find(policy.name, DIGEST_TAG, policy.digest())
        with self._asking(f"register policy {policy.version}"):
            if found is None:
                found = self._create_version(policy, run_id, texts)
            else:
                for key, value in texts.items():
                    self._client.set_model_version_tag(self.model_name(policy.name), found.version, key, value)
            return RegisteredVersion(found.version, found.run_id, found.source, {**found.tags, **texts})

    def tag(self, point: str, version: str, key: str, value: str) -> None:
        """Write one tag to a version."""
        with self._asking(f"tag version {version} of {self.model_name(point)}"):
            self._client.set_model_version_tag(self.model_name(point), version, key, value)

    def find(self, point: str, tag: str, value: str) -> RegisteredVersion | None:
        """Return the newest version with this value of a tag, or ``None``."""
        with self._asking(f"search versions of {self.model_name(point)}"):
            found = self._client.search_model_versions(
                f"name = '{self.model_name(point)}' and tags.`{tag}` = '{value}'", order_by=["version_number DESC"]
            )
            return _version(found[0]) if found else None

    def champion(self, point: str) -> RegisteredVersion | None:
        """Return the version that the alias ``champion`` names, or ``None`` before the first promotion."""
        return self.aliased(point, CHAMPION)

    def aliased(self, point: str, alias: str) -> RegisteredVersion | None:
        """Return the version that an alias names, or ``None``."""
        return self._asked(point, alias, lambda name: self._client.get_model_version_by_alias(name, alias))

    def version(self, point: str, version: str) -> RegisteredVersion | None:
        """Return a version by its number, or ``None`` where there is none."""
        return self._asked(point, f"version {version}", lambda name: self._client.get_model_version(name, version))

    def _asked(self, point: str, what: str, ask: Callable[[str], Any]) -> RegisteredVersion | None:
        with self._asking(f"read the {what} of {self.model_name(point)}"):
            try:
                return _version(ask(self.model_name(point)))
            except mlflow.exceptions.MlflowException as error:
                # No such model and no such alias are told apart by their texts alone; both mean: none yet.
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def promote(self, point: str, version: str) -> None:
        """Move the alias ``champion`` to a version; the one that had it becomes ``previous``."""
        before = self.champion(point)
        name = self.model_name(point)
        with self._asking(f"promote version {version} of {name}"):
            if before is not None and before.version != version:
                self._client.set_registered_model_alias(name, PREVIOUS, before.version)
            self._client.set_registered_model_alias(name, CHAMPION, version)

    def challenge(self, point: str, version: str) -> None:
        """Move the alias ``challenger`` to a version: it was trained, and did not pass the gate."""
        name = self.model_name(point)
        with self._asking(f"set the challenger of {name}"):
            self._client.set_registered_model_alias(name, CHALLENGER, version)

    def forget(self, point: str, alias: str) -> None:
        """Remove an alias."""
        with self._asking(f"remove the alias {alias} of {self.model_name(point)}"):
            self._client.delete_registered_model_alias(self.model_name(point), alias)

    def load(self, version: RegisteredVersion) -> Policy:
        """Return the policy of a version of a decision point; raises ``SnapshotError`` if its file is damaged."""
        return self.fetch(version, read_policy)

    def fetch(self, version: RegisteredVersion, read: Callable[[Path], P]) -> P:
        """Return the policy of a version by what reads its file; raises ``SnapshotError`` if it is damaged."""
        with tempfile.TemporaryDirectory() as directory, self._asking(f"fetch model version {version.version}"):
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{version.source}/artifacts/{_POLICY_FILE}",
                dst_path=directory,
                tracking_uri=self.tracking_uri,
            )
            return read(Path(path))

    def _create_version(
        self, policy: Policy | RecommenderPolicy, run_id: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        name = self.model_name(policy.name)
        with tempfile.TemporaryDirectory() as directory:
            _save_model(Path(directory) / "model", policy)
            model = self._client.create_logged_model(
                self._experiment_id, name=name, source_run_id=run_id, tags=dict(tags)
            )
            self._client.log_model_artifacts(model.model_id, str(Path(directory) / "model"))
        self._client.finalize_logged_model(model.model_id, "READY")
        try:
            self._client.create_registered_model(
                name, description=f"Policies of {policy.name}, as training made them; the one named champion acts."
            )
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # The artefacts' place, not models:/<id>: the latter is resolved through MLflow's global tracking URI.
        created = self._client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=run_id,
            tags=dict(tags),
            model_id=model.model_id,
            description=tags.get("verdict"),
        )
        return _version(created)

    # MLflow

    @cached_property
    def _client(self) -> Any:
        with warnings.catch_warnings():
            # MLflow's tables use a loader of SQLAlchemy that is on its way out.
            warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
            if self.tracking_uri.startswith(_SQLITE):
                _create_database(Path(self.tracking_uri.removeprefix(_SQLITE)))
            return mlflow.MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(self.experiment, artifact_location=self._artifacts()))

    def _artifacts(self) -> str | None:
        """Beside a SQLite file; a server knows its own place. (MLflow's default is the working directory.)"""
        if not self.tracking_uri.startswith(_SQLITE):
            return None
        return str(Path(self.tracking_uri.removeprefix(_SQLITE)).absolute().parent / "mlartifacts")

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        import requests
        import sqlalchemy.exc

        try:
            yield
        except (
            mlflow.exceptions.MlflowException,
            sqlalchemy.exc.SQLAlchemyError,
            requests.RequestException,
            OSError,
        ) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise RegistryError(
                f"registry {self.tracking_uri} did not {what}: {reason}; see that MLflow is up, that its database is "
                "not locked by another process and its disk not full, then run the same command again"
            ) from error


def _create_database(path: Path) -> None:
    """Make MLflow's SQLite file unless it is there, whole or not at all.

    MLflow builds its tables in dozens of steps, and cannot go on where it was cut off between two of them: such a
    file would end all retraining. So it is built under another name.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for another process that builds it
        if path.exists():
            return
        draft = path.with_name(f".{path.name}.draft")
        for leftover in path.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        uri = f"{_SQLITE}{draft}"
        mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models(max_results=1)
        draft.rename(path)


def _version(found: Any) -> RegisteredVersion:
    return RegisteredVersion(str(found.version), str(found.run_id), str(found.source), dict(found.tags))


def _save_model(path: Path, policy: Policy | RecommenderPolicy) -> None:
    """Write the model folder that MLflow keeps: the policy file and the code that reads it."""
    file = path.with_name(_POLICY_FILE)
    if isinstance(policy, Policy):
        code, signature = "pyfunc_model.py", _signature(policy)
        file.write_bytes(pack_policy(policy))
    else:
        code, signature = "pyfunc_recommender.py", _list_signature(policy)
        file.write_bytes(pack_recommender(policy))
    with warnings.catch_warnings():
        # An example would be scored to infer what is given here: signature and requirements.
        warnings.filterwarnings("ignore", message=".*An input example was not provided")
        mlflow.pyfunc.save_model(
            str(path),
            python_model=str(Path(__file__).with_name(code)),
            artifacts={"policy": str(file)},
            pip_requirements=_requirements(),
            signature=signature,
        )


def _requirements() -> list[str]:
    """Return what loading a model needs, at the versions of this process."""
    found = []
    for name in _REQUIREMENTS:
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            # Run from a source tree that was never installed.
            logging.getLogger(__name__).debug("%s is not installed; the model does not name it", name)
    return found


def _signature(policy: Policy) -> Any:
    """Return the columns that ``training.pyfunc_model`` reads; a feature may be left out."""
    types, schema = mlflow.types, policy.point
    inputs = [types.ColSpec("string", "action")]
    for prefix, features in (("context_", schema.context), ("action_", schema.actions.features)):
        for name, feature in features.items():
            inputs.append(types.ColSpec(_column_type(feature), prefix + name, required=False))
    return mlflow.models.ModelSignature(types.Schema(inputs), types.Schema([types.ColSpec("double", "score")]))


def _list_signature(policy: RecommenderPolicy) -> Any:
    """Return the columns that ``training.pyfunc_recommender`` reads; a field may be left out."""
    types, data = mlflow.types, mlflow.types.schema
    kinds = {
        "number": types.DataType.double,
        "category": types.DataType.string,
        "history": data.Array(types.DataType.string),
        "vector": data.Array(types.DataType.double),
    }
    recommender = policy.recommender
    inputs = [
        types.ColSpec(kinds[field.type], prefix + name, required=False)
        for prefix, fields in (("user_", recommender.user), ("item_", recommender.item))
        for name, field in fields.items()
    ]
    return mlflow.models.ModelSignature(types.Schema(inputs), types.Schema([types.ColSpec("double", "score")]))


def _column_type(feature: Feature) -> Any:
    if isinstance(feature, NumberFeature):
        return "double"
    return "string" if isinstance(feature, TextFeature) else mlflow.types.schema.Array(mlflow.types.DataType.double)
