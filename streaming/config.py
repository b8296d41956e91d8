"""The one YAML file: everything that can be said, read with errors that name path, value and remedy."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.config import (
    NAME,
    WRITTEN,
    DecisionPoint,
    Milliseconds,
    Model,
    Name,
    Recommender,
    ServingConfig,
    UCRL2OracleConfig,
)
from engine.errors import ConfigError
from engine.plain_yaml import read_yaml
from monitoring.config import MonitorsConfig
from streaming.kafka.settings import KafkaSettings, ServerAddress
from training.config import RecommenderRetrainingConfig, RegistryConfig, RetrainingConfig

ENVIRONMENT_PREFIX = "LEEWAY_"


class DecisionPointConfig(DecisionPoint):
    """A decision point with what watches and retrains it."""

    monitors: MonitorsConfig = MonitorsConfig()
    retraining: RetrainingConfig = RetrainingConfig()

    @model_validator(mode="after")
    def _check_retraining(self) -> DecisionPointConfig:
        if self.retraining.enabled and isinstance(self.policy.oracle, UCRL2OracleConfig):
            raise ValueError(
                "retraining fits regressions of the reward of one decision, which cannot replace a plan of kind ucrl2; "
                "set retraining.enabled: false (the plan is learned online, and begins anew when the process changes)"
            )
        if self.retraining.enabled and self.mode != "online":
            raise ValueError(
                f"mode is {self.mode}, in which no policy acts that retraining could replace; set retraining.enabled: "
                "false (leeway retrain trains on what was logged all the same), or mode: online"
            )
        return self

    def engine(self) -> DecisionPoint:
        """Return the part that the engine knows, which is what a policy carries with it."""
        return DecisionPoint.model_validate({name: getattr(self, name) for name in DecisionPoint.model_fields})


class RecommenderConfig(Recommender):
    """A recommender with what watches and retrains it."""

    monitors: MonitorsConfig = MonitorsConfig()
    retraining: RecommenderRetrainingConfig = RecommenderRetrainingConfig()

    def engine(self) -> Recommender:
        """Return the part that the engine knows, which is what a policy carries with it."""
        return Recommender.model_validate({name: getattr(self, name) for name in Recommender.model_fields})


#: What decides: one action, or a list.
Deciding = DecisionPointConfig | RecommenderConfig

Partitions = Annotated[int, Field(ge=1, le=256, description="fixed once the log exists")]
Retention = Annotated[Milliseconds, Field(gt=0, description="how long decisions, outcomes and feedback are kept")]


class EmbeddedLogConfig(Model):
    """The embedded log: one file for each writer, no server."""

    kind: Literal["embedded"] = "embedded"
    partitions: Partitions = 4
    retention: Retention = 2_592_000_000
    fsync: bool = Field(True, description="answers wait for the disk: safe from power loss, not only from kill -9")


class KafkaLogConfig(KafkaSettings):
    """The log on a Kafka cluster, with a spool on the local disk for the time when the cluster is away."""

    kind: Literal["kafka"]
    partitions: Partitions = 4
    retention: Retention = 2_592_000_000
    spool_max_bytes: int = Field(
        1_073_741_824, ge=1_048_576, description="most bytes of decisions and outcomes that wait for the cluster"
    )
    fsync: bool = Field(True, description="of the spool: as with the embedded log, which is what it is")


def _embedded_unless_said(value: object) -> object:
    return {"kind": "embedded", **value} if isinstance(value, dict) else value


#: One of the logs, by its ``kind``; the embedded one where none is said.
LogConfig = Annotated[
    EmbeddedLogConfig | KafkaLogConfig, Field(discriminator="kind"), BeforeValidator(_embedded_unless_said)
]
_LOGS: Mapping[str, type[Model]] = {"embedded": EmbeddedLogConfig, "kafka": KafkaLogConfig}


class MetricsConfig(Model):
    """Where Prometheus scrapes: one port for each process."""

    host: str = "127.0.0.1"
    serving_port: int = Field(9464, ge=0, le=65_535)
    pipeline_port: int = Field(9465, ge=0, le=65_535)
    join_port: int = Field(0, ge=0, le=65_535, description="of `leeway join`; 0: any free port, which it announces")

    @model_validator(mode="after")
    def _check(self) -> MetricsConfig:
        ports: dict[int, str] = {}
        for name in ("serving_port", "pipeline_port", "join_port"):
            port = getattr(self, name)
            if port and port in ports:
                raise ValueError(f"{ports[port]} and {name} are both {port}; each process needs its own")
            ports[port] = name
        return self


class Config(Model):
    """A whole installation of Leeway."""

    version: Literal[1]
    data_dir: Path = Path("leeway-data")
    recommenders: dict[Name, RecommenderConfig] = Field({})
    decision_points: dict[Name, DecisionPointConfig] = Field({}, validate_default=True)
    log: LogConfig = EmbeddedLogConfig()
    serving: ServingConfig = ServingConfig()
    metrics: MetricsConfig = MetricsConfig()
    registry: RegistryConfig = RegistryConfig()

    @field_validator("serving")
    @classmethod
    def _has_broker(cls, serving: ServingConfig, info: ValidationInfo) -> ServingConfig:
        if serving.durability == "broker" and isinstance(info.data.get("log"), EmbeddedLogConfig):
            raise ValueError("durability broker needs a broker: choose disk or memory, or log.kind kafka")
        return serving

    @field_validator("decision_points")
    @classmethod
    def _decides(cls, points: dict[str, DecisionPointConfig], info: ValidationInfo) -> dict[str, DecisionPointConfig]:
        if not points and info.data.get("recommenders") == {}:
            raise ValueError("at least 1 is required; add it here, or a recommender below recommenders")
        return points

    @model_validator(mode="after")
    def _names(self) -> Config:
        both = sorted(self.decision_points.keys() & self.recommenders.keys())
        if both:
            raise ValueError(
                f"decision_points and recommenders both have {both[0]!r}; names are used in calls, files and metrics: "
                "rename one of them"
            )
        return self

    def points(self) -> dict[str, DecisionPoint]:
        """Return the engine's part of every decision point."""
        return {name: point.engine() for name, point in self.decision_points.items()}

    def lists(self) -> dict[str, Recommender]:
        """Return the engine's part of every recommender."""
        return {name: recommender.engine() for name, recommender in self.recommenders.items()}

    @property
    def deciding(self) -> dict[str, Deciding]:
        """All that decides: decision points, then recommenders."""
        return {**self.decision_points, **self.recommenders}

    @property
    def catalogue_dir(self) -> Path:
        """Where the catalogues of recommenders lie that `leeway catalogue load` has taken."""
        return self.data_dir / "catalogues"

    @property
    def log_dir(self) -> Path:
        """Where the embedded log lies."""
        return self.data_dir / "log"

    def log_facts(self) -> dict[str, str]:
        """Return which log this is, in words that no password is among: ``kind``, ``address`` and ``topic_prefix``."""
        if isinstance(self.log, EmbeddedLogConfig):
            return {"kind": "embedded", "address": str(self.log_dir), "topic_prefix": ""}
        address = f"kafka://{','.join(self.log.bootstrap_servers)}"
        return {"kind": "kafka", "address": address, "topic_prefix": self.log.topic_prefix}

    @property
    def spool_dir(self) -> Path:
        """Where decisions and outcomes wait for a Kafka cluster."""
        return self.data_dir / "spool"

    @property
    def policy_dir(self) -> Path:
        """Where policies are published."""
        return self.data_dir / "policies"

    @property
    def archive_dir(self) -> Path:
        """Where feedback is archived."""
        return self.data_dir / "archive"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and models."""
        return self.registry.tracking_uri or f"sqlite:///{(self.data_dir / 'mlflow.db').resolve()}"


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file, for editors that check while one writes.

    Durations are whole numbers in it and texts with a unit in the file; what is checked across settings is not in it.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:leeway:schema:config:v1",
        **Config.model_json_schema(),
    }


def log_environment(url: str) -> dict[str, str]:
    """Return the variables that let a configuration use the cluster at ``kafka://host:port[,host:port]``.

    Raises ``ConfigError`` where it is no such address.

    >>> log_environment("kafka://a:9092,b:9092")
    {'LEEWAY_LOG__KIND': 'kafka', 'LEEWAY_LOG__BOOTSTRAP_SERVERS': '["a:9092", "b:9092"]'}
    """
    example = "write kafka://host:port[,host:port], such as kafka://localhost:9092"
    scheme, mark, rest = url.partition("://")
    if not mark or scheme != "kafka":
        raise ConfigError(f"{scheme + mark!r} does not begin the address of a log; {example}")
    if "@" in rest:  # it may be a password, and is not shown
        raise ConfigError(f"an address carries no user or password, give them as log.security; {example}")
    if "/" in rest.rstrip("/"):
        raise ConfigError(f"{rest!r} has a path; names are set apart by log.topic_prefix; {example}")
    servers = [server.strip() for server in rest.rstrip("/").split(",")]
    for server in servers:
        try:
            TypeAdapter(ServerAddress).validate_python(server)
        except ValidationError as error:
            problem = error.errors()[0]
            said = "is not host:port" if problem["type"] == "string_pattern_mismatch" else _said(problem)
            raise ConfigError(f"{server!r} {said}; {example}") from None
    return {
        f"{ENVIRONMENT_PREFIX}LOG__KIND": "kafka",
        f"{ENVIRONMENT_PREFIX}LOG__BOOTSTRAP_SERVERS": json.dumps(servers),
    }


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read, override and check a configuration file.

    A variable ``LEEWAY_SERVING__PORT=8181`` overrides ``serving.port``: two underscores stand for a step down, values
    are read as YAML. ``data_dir`` and paths of ``serving`` are taken relative to the file. Raises ``ConfigError``.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; write a starter with: leeway init {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    try:
        raw, tree = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    twice = _twice(tree) if tree is not None else None
    if twice is not None:
        raise ConfigError(f"{path}: {twice}")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, got {type(raw).__name__}; see: leeway init")
    overridden = _override(raw, environment)
    try:
        config = Config.model_validate(raw, context=WRITTEN)
    except ValidationError as error:
        problems = [_explain(problem, raw, tree, overridden) for problem in error.errors()]
        raise ConfigError(f"{path}: {len(problems)} problem(s)\n" + "\n".join(f"  {p}" for p in problems)) from None
    directory = path.parent.resolve()
    return config.model_copy(
        update={"data_dir": (directory / config.data_dir).resolve(), "serving": config.serving.beside(directory)}
    )


def _override(raw: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Write environment overrides into ``raw``; return which variable set which path."""
    overridden: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        path = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        if path[0] not in Config.model_fields:
            if len(path) > 1:
                raise ConfigError(
                    f"{variable}: no setting {'.'.join(path)}; known are: {', '.join(Config.model_fields)}"
                )
            _check_underscores(variable, path[0])
            continue  # LEEWAY_... for other purposes
        target = raw
        for step in path[:-1]:
            inner = target.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{variable}: {step} is no mapping, so nothing below it can be set")
            target = inner
        try:
            # A password is what it is: as YAML, 007 would be 7, and what cannot be read would be shown.
            target[path[-1]] = text if path[-1] in _SECRETS else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{variable}: {text!r} is not readable as YAML: {error}") from error
        overridden[path] = variable
    if ("log", "kind") in overridden:
        _drop_other_log(raw["log"], overridden)
    return overridden


def _drop_other_log(log: dict[str, Any], overridden: Mapping[tuple[str, ...], str]) -> None:
    """Leave out what the file says of the log that is not used: another kind was chosen over it."""
    known = _LOGS.get(str(log["kind"]), Model).model_fields
    others = {name for kind in _LOGS.values() for name in kind.model_fields} - known.keys()
    for name in others & log.keys():
        if not any(path[:2] == ("log", name) for path in overridden):
            del log[name]


def _check_underscores(variable: str, name: str) -> None:
    section = next((field for field in Config.model_fields if name.startswith(f"{field}_")), None)
    if section is not None:
        meant = f"{ENVIRONMENT_PREFIX}{section}__{name.removeprefix(f'{section}_')}".upper()
        raise ConfigError(f"{variable}: two underscores stand for a step down; did you mean {meant}?")


def _explain(problem: Any, raw: object, tree: yaml.Node | None, overridden: Mapping[tuple[str, ...], str]) -> str:
    # Pydantic names the tag of a union inside the path; the file has no such step.
    path, node = [], raw
    for step in problem["loc"]:
        if isinstance(node, dict) and step not in node and isinstance(step, str) and step in _TAGS:
            continue
        path.append(str(step))
        node = node[step] if isinstance(node, dict) and step in node else None
        if isinstance(problem["loc"], tuple) and isinstance(step, int):
            node = None
    where = ".".join(path) or "file"
    given = _shown(problem["input"], path[-1] if path else "")
    variable = overridden.get(tuple(path))
    place = f" (set by {variable})" if variable else _line(tree, path)
    match problem["type"]:
        case "extra_forbidden":
            if path[-1] in _FIELD_NAMES:
                return f"{where}{place}: is a setting of something else, and none here; remove it"
            known = difflib.get_close_matches(path[-1], _FIELD_NAMES, 1)
            return f"{where}{place}: unknown setting" + (f"; did you mean {known[0]}?" if known else "; remove it")
        case "model_type" | "model_attributes_type":
            return f"{where}{place}: must be a mapping of settings (got {given}); {{}} takes every default"
        case "missing":
            return f"{where}{place}: is required; add it"
        case "string_pattern_mismatch" if problem["ctx"]["pattern"] == NAME:
            return f"{where}{place}: {given} is no name; use lower-case letters, digits and _"
        case "string_pattern_mismatch" if "bootstrap_servers" in path:
            return f"{where}{place}: {given} is no address of a broker; write host:port, such as localhost:9092"
        case "string_pattern_mismatch":
            return f"{where}{place}: {given} cannot be part of a name; use letters, digits, '.', '_' and '-'"
        case _:
            return f"{where}{place}: {_said(problem)} (got {given})"


def _said(problem: Any) -> str:
    return str(problem["msg"]).removeprefix("Value error, ")


def _shown(value: object, name: str = "") -> str:
    """Return a value for a message, without the passwords in it."""
    if name in _SECRETS:
        return "***"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(inner, key)}" for key, inner in value.items()) + "}"
    return repr(value)


def _line(tree: yaml.Node | None, path: list[str]) -> str:
    """Return the line of the deepest part of a path that the file has."""
    node, line = tree, None
    for step in path:
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == step:
                line, node = key.start_mark.line + 1, value
                break
        else:
            break
    return f" (line {line})" if line else ""


def _twice(node: yaml.Node, path: str = "") -> str | None:
    """Return what is wrong where a key stands twice: YAML would keep the last one and drop the other in silence."""
    if not isinstance(node, yaml.MappingNode):
        return None
    lines: dict[str, int] = {}
    for key, value in node.value:
        where, line = f"{path}{key.value}", key.start_mark.line + 1
        if key.value in lines:
            return f"{where} (line {line}): stands in line {lines[key.value]} already; rename or remove one of them"
        lines[key.value] = line
        deeper = _twice(value, f"{where}.")
        if deeper is not None:
            return deeper
    return None


def _names(model: type[Model], seen: set[type[Model]]) -> set[str]:
    names = set(model.model_fields)
    for other in Model.__subclasses__():
        if other not in seen:
            seen.add(other)
            names |= _names(other, seen)
    return names


_FIELD_NAMES = sorted(
    _names(Config, set()) | set(DecisionPointConfig.model_fields) | set(RecommenderConfig.model_fields)
)
_TAGS = {
    "number",
    "text",
    "vector",
    "category",
    "history",
    "squarecb",
    "uniform",
    "embedded",
    "kafka",
    "function-before",
    "[key]",
}
_SECRETS = {"password", "key_password"}
