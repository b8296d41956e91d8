"""``leeway console``: a web page that shows how everything fares, and where operators act on it."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from streaming.options import actionable, config_option, log_config


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with an access_file.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8192, show_default=True, help="0: any free port.")
@click.option(
    "--name", "names", multiple=True, help="Also reached under this name, as through a proxy; may be repeated."
)
@actionable
def console(config_path: Path, host: str, port: int, names: tuple[str, ...]) -> None:
    """Serve the console, a web page: health, rewards, drift, decisions, policies, alarms, generations, the join."""
    config = log_config(config_path)
    from streaming.console.server import ConsoleServer

    server = ConsoleServer(config, host, port, names)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has ended, for who was there before: the exit status is 0.
        signal.signal(number, lambda *_: server.stop())
    shown = f"[{host}]" if ":" in host else host
    server.run(lambda: click.echo(f"console on http://{shown}:{server.port}/", err=True))
