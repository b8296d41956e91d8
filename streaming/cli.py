"""The command line: ``leeway COMMAND``. Each command is thin; what it does lives in the module that it calls."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.logging import RichHandler

from engine import __version__
from engine.errors import LeewayError
from streaming.agreement import agreement
from streaming.catalogue_command import catalogue
from streaming.compiler_cache import warn_of_open_cache
from streaming.config import config_schema, load_config
from streaming.console_command import console as console_command
from streaming.dlq import dlq
from streaming.drift import drift
from streaming.evaluate import evaluate
from streaming.generations import generations, promote, rollback
from streaming.interop import export_log, import_log
from streaming.options import (
    DEFAULT_CONFIG,
    USAGE,
    actionable,
    chosen_point,
    config_option,
    fail,
    log_config,
    point_option,
    print_json,
)
from streaming.rollout import rollout
from streaming.server_options import Reach, server_options
from streaming.shift import shift
from streaming.simulate import simulate
from streaming.token_command import token
from streaming.train_recommender import train_recommender


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="leeway")
@click.option("--verbose", is_flag=True, help="Say more.")
def main(verbose: bool) -> None:
    """Leeway: decide, log the propensity, join the reward, learn, notice drift, promote what is proved better."""
    console = Console(stderr=True)
    handler = (
        RichHandler(console=console, show_path=False) if console.is_terminal else logging.StreamHandler(sys.stderr)
    )
    form = "%(message)s" if console.is_terminal else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])
    for chatty in ("alembic", "jax", "matplotlib", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It has ten errors a second while a broker is away; ours say the reason once for each attempt.
    logging.getLogger("kafka").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    logging.getLogger("streaming").setLevel(logging.DEBUG if verbose else logging.INFO)
    warn_of_open_cache()


@main.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_CONFIG)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(path: Path, force: bool) -> None:
    """Write an annotated starter configuration to PATH."""
    if path.exists() and not force:
        fail(f"{path}: exists already; name another file, or overwrite it with --force", USAGE)
    try:
        path.write_text(files("streaming").joinpath("starter.yaml").read_text())
    except OSError as error:
        fail(f"{path}: cannot be written ({error.strerror})", 1)
    click.echo(f"{path} written; make it yours, then: leeway check --config {path}")


@main.command()
@config_option
@actionable
def check(config_path: Path) -> None:
    """Check the configuration."""
    config = load_config(config_path)
    kinds = {"decision points": list(config.decision_points), "recommenders": list(config.recommenders)}
    found = ", ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)
    click.echo(f"{config_path} is good: {found}; data below {config.data_dir}")


@main.command()
@config_option
@click.option("--only", type=click.Choice(["serve", "work"]), multiple=True, help="Start this role alone.")
@click.option(
    "--joiners",
    type=click.IntRange(0, 256),
    default=0,
    show_default=True,
    help="So many processes join, beside `work`; 0: `work` does it.",
)
@click.pass_context
@actionable
def up(context: click.Context, config_path: Path, only: tuple[str, ...], joiners: int) -> None:
    """Run everything on this machine: serving, join, learning, monitoring, retraining."""
    from streaming.up import Supervisor, commands

    if joiners and only == ("serve",):
        raise click.UsageError("--joiners starts processes beside `work`, and --only serve leaves that out")
    config = load_config(config_path)
    verbose = bool(context.parent and context.parent.params["verbose"])
    sys.exit(Supervisor(config_path, commands(config, only, joiners), verbose=verbose).run())


@main.command()
@config_option
@click.option("--process", "number", type=click.IntRange(min=1), hidden=True, help="One of several.")
@click.pass_context
@actionable
def serve(context: click.Context, config_path: Path, number: int | None) -> None:
    """Run the gRPC server alone."""
    from streaming.one_thread import one_thread_each

    one_thread_each()
    config = load_config(config_path)
    if number is None and config.serving.processes > 1:
        from streaming.crew import run_crew

        sys.exit(run_crew(config, config_path, verbose=bool(context.parent and context.parent.params["verbose"])))
    from streaming import serve as serving
    from streaming.own_cores import keep_to_own_cores
    from streaming.up import announce, hold_lifeline, hold_role, serving_role, withdraw

    role = "serve" if number is None else serving_role(number)
    keep_to_own_cores(number or 1, config.serving.processes)
    hold_lifeline()
    hold_role(config, role)

    def ready(process: serving.ServingProcess) -> None:
        said = config.serving
        facts = {} if process.http_port is None else {"http_port": process.http_port}
        announce(
            config,
            role,
            host=said.host,
            port=process.port,
            admin=f"{said.admin_host or said.host}:{process.admin_port}",
            health_port=process.health_port,
            metrics_port=process.metrics_port,
            **facts,
        )
        http = "" if process.http_port is None else f", HTTP on :{process.http_port}"
        click.echo(f"serving on {said.host}:{process.port}{http}, metrics on :{process.metrics_port}/metrics", err=True)

    serving.run(config, ready, number or 1)
    withdraw(config, role)


@main.command()
@config_option
@click.option("--without-join", is_flag=True, help="Leave joining to `leeway join`.")
@actionable
def work(config_path: Path, without_join: bool) -> None:
    """Run what is behind the log alone: join, learner, archive, monitors, retraining."""
    from streaming.pipeline import Pipeline
    from streaming.role_process import run
    from streaming.up import announce, hold_lifeline, hold_role, withdraw

    config = load_config(config_path)
    hold_lifeline()
    hold_role(config, "work")

    def ready(metrics_port: int) -> None:
        announce(config, "work", metrics_port=metrics_port, join=not without_join)
        click.echo(f"working, metrics on :{metrics_port}/metrics", err=True)

    run(Pipeline(config, config_path, join=not without_join), ready)
    withdraw(config, "work")


@main.command()
@config_option
@actionable
def join(config_path: Path) -> None:
    """Join decisions with their rewards alone; several of these share the partitions of a Kafka log.

    On the embedded log one of them joins, and the others stand by to take over.
    """
    from streaming.pipeline import JoinProcess
    from streaming.role_process import run
    from streaming.up import announce_joiner, hold_lifeline, withdraw

    config = load_config(config_path)
    hold_lifeline()
    names: list[str] = []

    def ready(metrics_port: int) -> None:
        names.append(announce_joiner(config, metrics_port=metrics_port))
        click.echo(f"joining, metrics on :{metrics_port}/metrics", err=True)

    run(JoinProcess(config), ready)
    for name in names:
        withdraw(config, name)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def doctor(config_path: Path, as_json: bool) -> None:
    """Say what is wrong and what to do; exit 1 if there is a problem."""
    from streaming.doctor import Level, examine
    from streaming.serve import now_ms

    findings = list(examine(log_config(config_path), now_ms()))
    if as_json:
        print_json([{"level": f.level.value, "subject": f.subject, "words": f.words} for f in findings])
    else:
        colours = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
        for finding in findings:
            mark = click.style(f"{finding.level.value:>8}", fg=colours[finding.level])
            click.echo(f"{mark}  {finding.subject}: {finding.words}")
    sys.exit(int(any(finding.level is Level.PROBLEM for finding in findings)))


@main.command()
@config_option
@click.option("--decision-id", help="Replay this decision alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def replay(config_path: Path, decision_id: str | None, as_json: bool) -> None:
    """Recompute logged decisions from their policies, bit for bit; exit 1 if any differs."""
    from streaming.opening import open_existing
    from streaming.replaying import replay_log

    config = log_config(config_path)
    log = open_existing(config)
    try:
        result = replay_log(log, config.policy_dir, decision_id)
    finally:
        log.close()
    if as_json:
        print_json({"decisions": result.decisions, "mismatches": result.mismatches, "examples": result.examples})
    else:
        for example in result.examples:
            click.echo(example)
        click.echo(f"{result.decisions} decisions recomputed, {result.mismatches} differ")
    if decision_id is not None and result.decisions == 0:
        fail(f"decision {decision_id!r} is not in the log; it was never recorded, or is older than log.retention", 1)
    sys.exit(int(result.mismatches > 0))


@main.command()
@config_option
@point_option
@click.option("--reason", type=click.Choice(["drift", "schedule", "manual"]), default="manual", show_default=True)
@click.option("--since-ms", type=int, help="Use feedback of decisions from this time on (milliseconds since 1970).")
@click.option("--since-last", is_flag=True, help="Use feedback since the end of the last window that was trained on.")
@click.option("--if-drift", is_flag=True, help="Only if an alarm calls for it that was not trained on, and since then.")
@click.option("--dry-run", is_flag=True, help="Train and judge, and change nothing.")
@click.option(
    "--textfile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write when this last ended well here, for the textfile collector of Prometheus' node exporter.",
)
@click.option("--prepare", is_flag=True, help="Set the model registry up, and train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def retrain(
    config_path: Path,
    point: str | None,
    reason: Literal["drift", "schedule", "manual"],
    since_ms: int | None,
    since_last: bool,
    if_drift: bool,
    dry_run: bool,
    textfile: Path | None,
    prepare: bool,
    as_json: bool,
) -> None:
    """Train on the archive, judge off-policy, and promote what is proved better.

    Exit status: 0 promoted or nothing to do, 1 try again, 2 usage, 3 not enough data, 4 the gate did not hold, 5
    another retraining runs, 6 an alarm holds promotions (see: leeway drift list).
    """
    config = load_config(config_path) if prepare else log_config(config_path)  # the registry is apart from the log
    name = "" if prepare else chosen_point(config, point, recommenders=True)
    if sum((since_ms is not None, since_last, if_drift)) > 1:
        raise click.UsageError("--since-ms, --since-last and --if-drift each say where to begin; choose one")
    # MLflow takes seconds: a typing error need not wait for it.
    from streaming.retraining import begin_of, open_registry, record_success, retrain_point

    if prepare:
        open_registry(config).prepare()
        return
    say: Callable[[str], None] = lambda words: click.echo(words, err=True)  # noqa: E731
    begin = begin_of(config, name, since_ms=since_ms, since_last=since_last, if_drift=if_drift)
    outcome = begin.nothing or retrain_point(
        config, name, reason="drift" if if_drift else reason, since_ms=begin.since_ms, dry_run=dry_run, progress=say
    )
    if textfile is not None and not dry_run:
        record_success(textfile, name, outcome)
    if as_json:
        print_json(outcome.report())
    else:
        click.echo(outcome.words)
    sys.exit(int(outcome.exit_code))


@main.command()
@config_option
@click.option("--target", help="host:port of the admin service; default: the one of this configuration.")
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def status(config_path: Path, target: str | None, reach: Reach, as_json: bool) -> None:
    """Ask the running server for its state."""
    import grpc
    from google.protobuf.json_format import MessageToDict

    from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
    from streaming.up import whereabouts

    config = load_config(config_path)
    facts = whereabouts(config, "serve")
    if target is None:
        if facts is None:
            raise LeewayError("no server runs for this configuration; start it with: leeway up")
        target = str(facts["admin"])
    with reach.channel(target, tls=config.serving.tls is not None) as channel:
        try:
            reply = admin_pb2_grpc.LeewayAdminStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=5.0)
        except grpc.RpcError as error:
            raise LeewayError(f"{target} does not answer: {error.details()}") from error
    if as_json:
        print_json(MessageToDict(reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
        return
    click.echo(f"leeway {reply.version} at {target}, up {time.time() - reply.started_ms / 1_000:.0f} s")
    for point in reply.decision_points:
        book = point.accounting
        items = f" over {point.catalogue_items} items" if point.catalogue_items else ""
        asleep = f" + {book.unactivated} never activated" if book.unactivated else ""
        mode = f", {point.mode}" if point.mode not in ("", "online") else ""
        click.echo(
            f"{point.decision_point} ({point.kind}{mode}): policy {point.policy_version}{items}, learned from "
            f"{point.learned}; "
            f"{book.decisions} decisions = {book.feedback - book.defaulted} rewarded + {book.defaulted} defaulted "
            f"+ {book.pending} pending{asleep}; {len(point.alarms)} alarms"
        )


@main.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), default=Path("leeway-demo"))
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here.")
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), help="A CSV table of your own.")
@click.option("--label", help="Its column to predict; each of its values becomes an action.")
@click.option(
    "--before", type=click.IntRange(min=2_000), default=5_000, show_default=True, help="Decisions before the change."
)
@click.option(
    "--after",
    type=click.IntRange(min=2_000),
    default=25_000,
    show_default=True,
    help="Most decisions after the change.",
)
@click.option("--rate", type=click.IntRange(min=10), default=250, show_default=True, help="Decisions per second.")
@click.option("--seed", type=int, default=0, show_default=True)
@actionable
def demo(
    directory: Path,
    json_path: Path | None,
    data: Path | None,
    label: str | None,
    before: int,
    after: int,
    rate: int,
    seed: int,
) -> None:
    """Show the whole loop on real data: learn, drift, alarm, retraining, gate, promotion, recovery."""
    from streaming.demo import DemoSettings, run_demo

    # A demo that is told to end takes its server with it, as it does on Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    if (data is None) != (label is None):
        raise click.UsageError("--data and --label go together")
    settings = DemoSettings(directory, data, label, before, after, rate, seed)
    # Lines that are written to a file are not folded.
    figures = run_demo(settings, Console(stderr=True, width=None if sys.stderr.isatty() else 240))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    missed = [goal["name"] for goal in figures["goals"] if not goal["holds"]]
    if missed:
        fail(f"the demo did not show: {', '.join(missed)}; see {directory / 'report.html'}", 1)


@main.command()
@click.argument("what", type=click.Choice(["outcome", "config"]), default="outcome")
def schema(what: str) -> None:
    """Print a JSON Schema (draft 2020-12): of an outcome that others write to the log, or of the configuration."""
    from streaming.outcome_json import outcome_schema

    print_json(outcome_schema() if what == "outcome" else config_schema())


for command in (
    dlq,
    agreement,
    drift,
    evaluate,
    simulate,
    shift,
    import_log,
    export_log,
    generations,
    promote,
    rollback,
    rollout,
    catalogue,
    train_recommender,
    token,
    console_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
