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
from streaming.config import log_environment

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


def print_json(value: Any) -> None:
    """Print a value as JSON, for people and programs."""
    click.echo(json.dumps(value, indent=2))
