"""The one YAML file: everything that can be said, read with errors that name path, value and remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from engine.config import WRITTEN, DecisionPoint, Milliseconds, Model, Name, ServingConfig
from engine.errors import ConfigError
from monitoring.config import MonitorsConfig
from training.config import RegistryConfig, RetrainingConfig

ENVIRONMENT_PREFIX = "LEEWAY_"


class DecisionPointConfig(DecisionPoint):
    """A decision point with what watches and retrains it."""

    monitors: MonitorsConfig = MonitorsConfig()
    retraining: RetrainingConfig = RetrainingConfig()

    def engine(self) -> DecisionPoint:
        """Return the part that the engine knows, which is what a policy carries with it."""
        return DecisionPoint.model_validate({name: getattr(self, name) for name in DecisionPoint.model_fields})


class LogConfig(Model):
    """The embedded log: one file for each writer, no server."""

    kind: Literal["embedded"] = "embedded"
    partitions: int = Field(4, ge=1, le=256, description="fixed once the log exists")
    retention: Milliseconds = Field(
        2_592_000_000, gt=0, description="how long decisions, outcomes and feedback are kept"
    )
    fsync: bool = Field(True, description="answers wait for the disk: safe from power loss, not only from kill -9")


class MetricsConfig(Model):
    """Where Prometheus scrapes: one port for each process."""

    host: str = "127.0.0.1"
    serving_port: int = Field(9464, ge=0, le=65_535)
    pipeline_port: int = Field(9465, ge=0, le=65_535)

    @model_validator(mode="after")
    def _check(self) -> MetricsConfig:
        if self.serving_port == self.pipeline_port != 0:
            raise ValueError(f"serving_port and pipeline_port are both {self.serving_port}; each process needs its own")
        return self


class Config(Model):
    """A whole installation of Leeway."""

    version: Literal[1]
    data_dir: Path = Path("leeway-data")
    decision_points: dict[Name, DecisionPointConfig] = Field(min_length=1)
    log: LogConfig = LogConfig()
    serving: ServingConfig = ServingConfig()
    metrics: MetricsConfig = MetricsConfig()
    registry: RegistryConfig = RegistryConfig()

    def points(self) -> dict[str, DecisionPoint]:
        """Return the engine's part of every decision point."""
        return {name: point.engine() for name, point in self.decision_points.items()}

    @property
    def log_dir(self) -> Path:
        """Where the embedded log lies."""
        return self.data_dir / "log"

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


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read, override and check a configuration file.

    A variable ``LEEWAY_SERVING__PORT=8181`` overrides ``serving.port``: two underscores stand for a step down, values
    are read as YAML. ``data_dir`` is taken relative to the file. Raises ``ConfigError``.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; write a starter with: leeway init {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    try:
        raw = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
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
    return config.model_copy(update={"data_dir": (path.parent / config.data_dir).resolve()})


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
            target[path[-1]] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{variable}: {text!r} is not readable as YAML: {error}") from error
        overridden[path] = variable
    return overridden


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
    variable = overridden.get(tuple(path))
    place = f" (set by {variable})" if variable else _line(tree, path)
    match problem["type"]:
        case "extra_forbidden":
            known = difflib.get_close_matches(path[-1], _FIELD_NAMES, 1)
            return f"{where}{place}: unknown setting" + (f"; did you mean {known[0]}?" if known else "; remove it")
        case "model_type":
            return f"{where}{place}: must be a mapping of settings (got {problem['input']!r}); {{}} takes every default"
        case "missing":
            return f"{where}{place}: is required; add it"
        case "string_pattern_mismatch":
            return f"{where}{place}: {problem['input']!r} is no name; use lower-case letters, digits and _"
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            return f"{where}{place}: {message} (got {problem['input']!r})"


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


_FIELD_NAMES = sorted(_names(Config, set()) | set(DecisionPointConfig.model_fields))
_TAGS = {"number", "text", "vector", "squarecb", "uniform", "function-before", "[key]"}
