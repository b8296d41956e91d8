"""The demo's course: start a real server, stream, change the world, wait for the loop to close, tell."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from rich.console import Console

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.errors import ConfigError, LeewayError
from streaming.config import Config, load_config
from streaming.demo.figures import collect
from streaming.demo.report import write_report
from streaming.demo.traffic import Traffic
from streaming.demo.world import Table, World, digits, read_table
from streaming.opening import open_log
from streaming.topics import MONITOR
from streaming.up import whereabouts

POINT = "demo"
MARKER = ".leeway-demo"
#: Decisions streamed between two looks at the server.
CHUNK = 250
#: Decisions after a promotion before the demo may end: enough for the mean of the last thousand.
RECOVERY = 3_000
START_S = 60.0
#: For the monitors' loops to be compiled, which a first start on a busy machine does for half a minute.
WATCH_S = 180.0
DRAIN_S = 30.0


@dataclass(frozen=True)
class DemoSettings:
    """What the command line says."""

    directory: Path
    data: Path | None
    label: str | None
    before: int
    after: int
    rate: int
    seed: int


def run_demo(settings: DemoSettings, console: Console) -> dict[str, Any]:
    """Run the demo and return its figures; the report lies in its directory."""
    table = digits() if settings.data is None or settings.label is None else read_table(settings.data, settings.label)
    path = prepare(settings.directory, table)
    config = load_config(path)
    console.print(f"[bold]Leeway demo[/]: {table.name}, {len(table.rows)} rows, {len(table.actions)} actions")
    world = World(table, settings.before, settings.seed)
    started = time.monotonic()
    with server(path, config, settings.directory / "server.log") as (target, process):
        console.print(f"server runs at {target}; streaming {settings.rate} decisions a second")
        traffic = Traffic(target, POINT, world)
        with grpc.insecure_channel(target) as channel:
            admin = admin_pb2_grpc.LeewayAdminStub(channel)
            traffic.run(min(CHUNK, settings.before), settings.rate)
            _await_monitors(config, process, console)
            _stream(traffic, admin, process, settings, console)
            traffic.finish()
            _settle(admin, console)
    console.print("server stopped; replaying every decision and drawing the report")
    assert traffic.change_ms is not None
    figures, series = collect(config, POINT, traffic.change_ms, list(traffic.acknowledged))
    figures["client_errors"] = traffic.errors
    figures["seconds"] = round(time.monotonic() - started, 1)
    figures["data"] = table.name
    figures["goals"] = goals_of(figures, own_data=settings.data is not None)
    report = settings.directory / "report.html"
    write_report(report, figures, series)
    for goal in figures["goals"]:
        mark = "[green]holds[/]" if goal["holds"] else "[red]does not hold[/]"
        console.print(f"  {goal['name']}: {goal['value']} (bound: {goal['bound']}) {mark}", highlight=False)
    console.print(f"report: {report}")
    return figures


def prepare(directory: Path, table: Table) -> Path:
    """Make an empty demo directory with its configuration; refuses to empty one that is not a demo's."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise ConfigError(f"--dir {directory}: is not empty and no demo made it; name another")
        shutil.rmtree(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARKER).touch()
    except OSError as error:
        raise ConfigError(f"--dir {directory}: cannot be made or written ({error.strerror}); name another") from error
    config = {
        "version": 1,
        "data_dir": "data",
        "decision_points": {POINT: decision_point(table)},
        "serving": {"port": 0, "drain": "100ms"},
        "metrics": {"serving_port": 0, "pipeline_port": 0},
    }
    path = directory / "leeway.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def decision_point(table: Table) -> dict[str, Any]:
    """Return the settings of the decision point that the demo asks about a table."""
    return {
        "context": table.schema,
        "reward": {"window": "1s", "grace": "500ms", "aggregation": "first"},
        # Explore until a promotion, however long a slow machine takes to train.
        "policy": {
            "publish_interval": "500ms",
            "drift_exploration": 0.9,
            "drift_exploration_feedbacks": 100_000,
        },
        # Ten actions explored nearly uniformly: a tenth of the held-back feedback counts for a new policy.
        "retraining": {
            "min_events": 1_200,
            "hold_back": 0.3,
            "gate": {"min_effective_sample_size": 20},
        },
    }


@contextlib.contextmanager
def server(path: Path, config: Config, messages: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run ``leeway up`` in a process of its own, and end it with SIGTERM; yields its address and the process."""
    with messages.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "streaming.cli", "up", "--config", str(path)],
            stdout=sink,
            stderr=sink,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield wait_for_server(config, process, messages), process
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(DRAIN_S)
    if status != 0:
        raise LeewayError(f"the server ended with status {status}; its messages are in {messages}")


def wait_for_server(config: Config, process: subprocess.Popen[bytes], messages: Path) -> str:
    """Return ``host:port`` once both roles run."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        serve, work = whereabouts(config, "serve"), whereabouts(config, "work")
        if serve is not None and work is not None:
            return f"{serve['host']}:{serve['port']}"
        if process.poll() is not None:
            raise LeewayError(f"the server ended with status {process.returncode}; its messages are in {messages}")
        time.sleep(0.1)
    raise LeewayError(f"the server was not ready after {START_S:.0f} s; its messages are in {messages}")


def _status(admin: admin_pb2_grpc.LeewayAdminStub) -> admin_pb2.DecisionPointStatus:
    return admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10.0, wait_for_ready=True).decision_points[0]


def _await_monitors(config: Config, process: subprocess.Popen[bytes], console: Console) -> None:
    """Wait until somebody watches: a change before that would be found too late to be explored."""
    console.print("waiting for the monitors; at a first start their loops are compiled")
    end = time.monotonic() + WATCH_S
    with closing(open_log(config)) as log:
        while not log.committed(MONITOR) and time.monotonic() < end and process.poll() is None:
            time.sleep(0.2)


def _stream(
    traffic: Traffic,
    admin: admin_pb2_grpc.LeewayAdminStub,
    process: subprocess.Popen[bytes],
    settings: DemoSettings,
    console: Console,
) -> None:
    """Stream until the loop has closed once more, or the decisions are used up."""
    promoted_at: int | None = None
    told = 0
    while traffic.asked < settings.before + settings.after:
        left = settings.before - traffic.asked
        traffic.run(min(CHUNK, left) if left > 0 else CHUNK, settings.rate)
        if process.poll() is not None:
            raise LeewayError(f"the server ended with status {process.returncode} while the demo was running")
        if not traffic.rewards:
            raise LeewayError(f"no decision was answered; the last error: {traffic.errors[-1]}")
        state = _status(admin)
        phase = "before the change" if traffic.asked <= settings.before else "after the change"
        console.print(
            f"{traffic.asked:>6} decisions, {phase}: reward {sum(traffic.rewards) / len(traffic.rewards):.3f}"
            f"  policy {state.policy_version}  pending {state.accounting.pending}",
            highlight=False,
        )
        for alarm in state.alarms[told:]:
            style = "bold red" if alarm.calls_for_retraining else "dim"
            console.print(f"        alarm: {alarm.explanation}", style=style, highlight=False)
        told = len(state.alarms)
        if state.generation > 0 and promoted_at is None:
            promoted_at = traffic.asked
            console.print(f"        generation {state.generation} was promoted and serves", style="bold green")
        if promoted_at is not None and traffic.asked >= max(promoted_at, settings.before) + RECOVERY:
            return


def _settle(admin: admin_pb2_grpc.LeewayAdminStub, console: Console) -> None:
    """Wait until every window has closed."""
    end = time.monotonic() + DRAIN_S
    while time.monotonic() < end:
        state = _status(admin)
        if state.accounting.pending == 0 and state.accounting.decisions >= state.decisions:
            return
        time.sleep(0.2)
    console.print(f"{state.accounting.pending} decisions are still pending", style="yellow")


def goals_of(figures: dict[str, Any], *, own_data: bool) -> list[dict[str, Any]]:
    """Return what a finished run is held to, with the values that it reached; less of it on a stranger's table."""

    def goal(name: str, value: Any, bound: str, holds: bool) -> dict[str, Any]:
        return {"name": name, "value": value, "bound": bound, "holds": bool(holds)}

    balance = figures["feedback"] + figures["pending"]
    missing, mismatches = figures["acknowledged_missing"], figures["replay_mismatches"]
    goals = [
        goal("decisions = feedback + pending", balance, f"= {figures['decisions']}", balance == figures["decisions"]),
        goal("acknowledged decisions missing", missing, "= 0", missing == 0),
        goal("replay mismatches", mismatches, "= 0", mismatches == 0 and figures["replayed"] == figures["decisions"]),
    ]
    if own_data:
        return goals  # nobody promised how well a stranger's table can be learned
    after = [alarm["joined_after_change"] for alarm in figures["alarms"] if alarm["joined_after_change"] >= 0]
    soonest = min(after, default=None)
    before = [a for a in figures["alarms"] if a["calls_for_retraining"] and -2_000 <= a["joined_after_change"] < 0]
    promoted = [g for g in figures["generations"] if g["promoted"] and g["after_change"]]
    return [
        *goals,
        goal("reward before the change", figures["reward_before"], ">= 0.80", figures["reward_before"] >= 0.80),
        goal("joined decisions from change to alarm", soonest, "<= 400", soonest is not None and soonest <= 400),
        goal("calls for retraining in the 2,000 before", len(before), "= 0", not before),
        goal("generations promoted after the change", len(promoted), ">= 1", len(promoted) >= 1),
        goal(
            "reward after / before",
            round(figures["reward_after"] / figures["reward_before"], 4) if figures["reward_before"] else None,
            ">= 0.9",
            figures["reward_after"] >= 0.9 * figures["reward_before"] > 0,
        ),
    ]
