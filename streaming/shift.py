"""``leeway shift``: which features of a table of impressions shift from day to day, and which to augment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine.errors import ConfigError
from streaming.config import load_config
from streaming.options import DEFAULT_CONFIG, USAGE, actionable, fail, print_json

if TYPE_CHECKING:
    from training.sessions.shift import ShiftReport

_SHOWN = 20


@click.command()
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    required=True,
    help="Parquet or CSV (or a directory of such files), one row for each item shown.",
)
@click.option(
    "--schema",
    "schema_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="YAML that says which column is what; see docs/sessions.md.",
)
@click.option(
    "--against",
    type=click.Choice(["first", "previous"]),
    default="first",
    show_default=True,
    help="Compare each day with the first days together, or with the day before it.",
)
@click.option(
    "--reference-days",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many days come first; buckets and categories are theirs.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(min=0.0),
    default=0.1,
    show_default=True,
    help="Propose a feature whose index is on average so much above chance.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write page, plots and JSON here.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Write a run to the MLflow that this configuration names, such as {DEFAULT_CONFIG}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def shift(
    table: Path,
    schema_path: Path,
    against: Literal["first", "previous"],
    reference_days: int,
    threshold: float,
    out: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Say which features of a table of impressions shift from day to day, and which of them to augment.

    Each feature's histogram of a day is compared with that of a reference by the population stability index and the
    Jensen-Shannon divergence. Ranked is what the index is above that of two samples of one law.
    """
    from training.sessions.schema import read_schema
    from training.sessions.shift import analyse
    from training.sessions.table import open_table

    config = None if config_path is None else load_config(config_path)
    try:
        source = open_table(table, read_schema(schema_path))
        with _progress(reference_days + len(source.days())) as advance:
            report = analyse(
                source, reference=against, reference_days=reference_days, threshold=threshold, progress=advance
            )
    except ValueError as error:  # too few days, or fields that do not go together
        raise ConfigError(f"{table}: {error}") from error
    if out is not None:
        from training.sessions.shift_report import write_report

        try:
            write_report(report, out, table.name)
        except OSError as error:
            fail(f"--out {out}: cannot be written ({error.strerror})", USAGE)
    if config is not None:
        from streaming.retraining import open_registry
        from training.sessions.shift_report import log_to_mlflow

        log_to_mlflow(report, open_registry(config), table.name, time.time_ns() // 1_000_000)
    if as_json:
        print_json({"source": table.name, **report.to_json()})
    else:
        _print(report)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it has come, where there is a terminal to show it on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("days", total=total)
        yield lambda done: bar.update(task, completed=done)


def _print(report: ShiftReport) -> None:
    table = Table("feature", "side", "kind", "shift", "greatest PSI", "greatest JS", box=None)
    for factor in report.factors[:_SHOWN]:
        greatest = (f"{max(values):.3f}" if (values := _known(found)) else "" for found in (factor.psi, factor.js))
        table.add_row(factor.name, factor.side, factor.kind, f"{factor.shift:.3f}", *greatest)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
    if len(report.factors) > _SHOWN:
        click.echo(f"and {len(report.factors) - _SHOWN} more that shift less; --json has all of them")
    click.echo(f"augment: {', '.join(report.augment) or 'none shifts so much'}")


def _known(values: object) -> list[float]:
    """Return the values that are numbers."""
    import numpy as np

    found = np.asarray(values, dtype=np.float64)
    return [float(value) for value in found[~np.isnan(found)]]
