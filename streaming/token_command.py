"""``leeway token``: make a token, and look at the file of those who may call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import click
import yaml

from engine.config import parse_duration
from engine.errors import ConfigError
from engine.serving.tokens import Scope, TokenEntry, new_token, read_access
from streaming.options import actionable, print_json


@click.group()
def token() -> None:
    """Tokens for those who call the server."""


@token.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", type=click.Choice(get_args(Scope)), multiple=True, required=True, help="May be repeated."
)
@click.option("--point", "points", multiple=True, help="Limit it to these decision points and recommenders.")
@click.option("--expires-in", metavar="DURATION", help="Such as 90d; default: never.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def create(
    name: str, scopes: tuple[Scope, ...], points: tuple[str, ...], expires_in: str | None, as_json: bool
) -> None:
    """Make a token for NAME; print it, this once, and the entry for the file of serving.access_file.

    Nothing is written: the token is known to nobody until the entry is in the file.
    """
    secret, digest = new_token()
    said: dict[str, object] = {"name": name, "hash": digest, "scopes": list(scopes), "points": list(points) or "all"}
    try:
        if expires_in is not None:
            end = datetime.now(UTC) + timedelta(milliseconds=parse_duration(expires_in))
            said["expires"] = end.isoformat(timespec="seconds")
        TokenEntry.model_validate(said)
    except ValueError as error:
        raise ConfigError(f"no entry can be made of this: {error}") from error
    if as_json:
        print_json({"token": secret, "entry": said})
        return
    click.echo(secret)
    click.echo("Give it to the caller; it is shown this once. Below `tokens:` in serving.access_file:", err=True)
    click.echo(yaml.safe_dump([said], sort_keys=False, default_flow_style=None, width=120), nl=False)


@token.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@actionable
def check(file: Path) -> None:
    """Say who may call by FILE, before a server reads it."""
    for caller in read_access(file).callers:
        points = "all" if caller.points is None else ", ".join(sorted(caller.points))
        end = "" if caller.expires_ms is None else f"; until {datetime.fromtimestamp(caller.expires_ms / 1_000, UTC)}"
        click.echo(f"{caller.name}: {', '.join(sorted(caller.scopes))}; points: {points}{end}")
