"""What every command has in common: where the configuration is, how JSON is printed, how an error ends it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from engine.errors import ConfigError, LeewayError
from streaming.config import Config, load_config, log_environment
from streaming.up import refuse_other_log

P = ParamSpec("P")
R = TypeVar("R")
DEFAULT_CONFIG = Path("leeway.yaml")
#: Exit status for usage and configuration, as click's own.
USAGE = 2


def config_option(function: Callable[..., R]) -> Callable[..., R]:
    """Add ``--config``, and ``--log``, which changes what the configuration says."""
    log = click.option(
        "--log",
        metavar="kafka://HOST:PORT[,...]",
        expose_value=False,
        callback=_use_log,
        help="Use this cluster, whatever log the configuration names.",
    )
    config = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=lambda: Path(os.environ.get("LEEWAY_CONFIG", DEFAULT_CONFIG)),
        show_default=f"$LEEWAY_CONFIG or {DEFAULT_CONFIG}",
        help="The configuration file.",
    )
    return config(log(function))


def _use_log(_context: click.Context, _parameter: click.Parameter, url: str | None) -> None:
    """Let this process, and those that it starts, find the cluster as an override in their environment."""
    if url is not None:
        try:
            os.environ.update(log_environment(url))
        except ConfigError as error:
            raise click.BadParameter(str(error)) from error


def actionable(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that say what to do into a message and an exit status, without a trace."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LeewayError as error:
            fail(str(error), USAGE if isinstance(error, ConfigError) else 1)

    return run


def fail(message: str, status: int) -> NoReturn:
    """End the command with a message on standard error."""
    click.echo(f"leeway: {message}", err=True)
    sys.exit(status)


def shortened(text: str, length: int = 80) -> str:
    """Return the beginning and the end of what others have sent, in characters that do not steer the terminal.

    >>> shortened("k" * 1_000_000, 12), shortened("a\\x1b[2J")
    ('kkkkkk...kkk', 'a\\\\x1b[2J')
    """
    cut = text if len(text) <= length else f"{text[: length // 2]}...{text[len(text) - (length - length // 2 - 3) :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def log_config(path: Path) -> Config:
    """Load the configuration for a command that uses the log.

    Raises ``ConfigError``, also where a running process of the same data directory uses another log.
    """
    config = load_config(path)
    refuse_other_log(config)
    return config


def chosen_point(config: Config, name: str | None) -> str:
    """Return the decision point that ``--decision-point`` names, or the only one; raises ``ConfigError``."""
    known = list(config.decision_points)
    if name is None:
        if len(known) > 1:
            raise ConfigError(f"several decision points are configured; choose one: --decision-point {'|'.join(known)}")
        return known[0]
    if name not in known:
        raise ConfigError(f"--decision-point {name}: not configured; known are: {', '.join(known)}")
    return name


def print_json(value: Any) -> None:
    """Print a value as JSON, for people and programs."""
    click.echo(json.dumps(value, indent=2))
