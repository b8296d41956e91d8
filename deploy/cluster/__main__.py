"""``python -m deploy.cluster``: start everything, stream the demo through it, tell, and end everything.

Kafka, MLflow, Prometheus where it is installed, two serving processes, two members of the join, and one process that
learns, monitors, archives and retrains: on free ports of the loopback, below one folder, without containers. Ctrl-C or
SIGTERM end it in order at any time. Exit status 0: every goal holds, 1: one does not, or something failed.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click

from deploy.cluster.crew import Crew
from deploy.cluster.drive import Drive
from deploy.cluster.topology import Topology
from engine.errors import LeewayError
from streaming.demo.run import POINT, decision_point
from streaming.demo.world import digits

MARKER = ".leeway-cluster"


def empty(directory: Path) -> None:
    """Make the folder, or empty one of a run before; refuses any other that is not empty."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise LeewayError(f"--dir {directory}: is not empty and no run of this made it; name another")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


def end_in_order(number: int, _frame: FrameType | None) -> None:
    """Leave through every ``finally``, which a second signal must not cut short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    say(f"{signal.Signals(number).name}: ending everything")
    sys.exit(128 + number)


def say(words: str) -> None:
    """Tell the operator."""
    click.echo(f"cluster: {words}", err=True)


def start(topology: Topology, crew: Crew, patience_s: float) -> dict[str, Any]:
    """Start everything and wait until it is ready; return the seconds that it took."""
    began = time.monotonic()
    end = began + patience_s
    say("starting Kafka, MLflow and Prometheus")
    servers = {"mlflow": topology.start_mlflow()}
    if (prometheus := topology.start_prometheus()) is not None:
        servers["prometheus"] = prometheus
    bootstrap = topology.start_kafka()
    took = {"kafka": round(time.monotonic() - began, 1)}
    topology.configure(bootstrap)
    took |= crew.wait(servers, end)
    say("starting the roles of Leeway")
    took |= crew.wait(topology.start_roles(), end)
    if topology.prometheus:
        took |= crew.wait({"scraped by Prometheus": topology.watch()}, end)
    took["all"] = round(time.monotonic() - began, 1)
    return took


@click.command(help=__doc__)
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), default=Path("leeway-cluster"))
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here.")
@click.option("--before", type=click.IntRange(min=2_000), default=5_000, show_default=True)
@click.option("--after", type=click.IntRange(min=2_000), default=25_000, show_default=True)
@click.option("--rate", type=click.IntRange(min=10), default=150, show_default=True, help="Decisions per second.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--patience", type=float, default=60.0, show_default=True, help="Seconds until all must be ready.")
@click.option("--stay", is_flag=True, help="Stream nothing, and run until Ctrl-C.")
def main(
    directory: Path,
    json_path: Path | None,
    before: int,
    after: int,
    rate: int,
    seed: int,
    patience: float,
    stay: bool,
) -> None:
    """Run it all, as the command line says."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_in_order)
    directory = directory.resolve()
    try:
        empty(directory)
        table = digits()
        with Crew(directory / "messages", say) as crew:
            topology = Topology(directory, {POINT: decision_point(table)}, crew, say)
            took = start(topology, crew, patience)
            say(f"everything is ready after {took['all']} s; messages are in {directory / 'messages'}")
            say(f"MLflow {topology.mlflow}  Prometheus {topology.prometheus or 'left out'}")
            while stay:
                crew.check()
                time.sleep(0.5)
            drive = Drive(topology, crew, table, before=before, after=after, rate=rate, seed=seed, say=say)
            figures = {"ready_seconds": took, **drive.run()}
    except LeewayError as error:
        say(str(error))
        sys.exit(1)
    say("everything has ended")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    for goal in figures["goals"]:
        mark = "holds" if goal["holds"] else "DOES NOT HOLD"
        say(f"{goal['name']}: {goal['value']} (bound: {goal['bound']}) {mark}")
    sys.exit(int(not all(goal["holds"] for goal in figures["goals"])))


if __name__ == "__main__":
    main()
