"""``leeway import`` and ``leeway export``: logs made elsewhere, and logs for elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.config import DecisionPoint
from engine.errors import ConfigError, InvalidRequest, LeewayError
from engine.records import Feedback
from streaming.config import Config, load_config
from streaming.options import actionable, config_option, print_json, shortened

if TYPE_CHECKING:
    from training.dataset import Dataset
    from training.formats import Unusable

FORMATS = ("dsjson", "vw", "obd")
#: A table of one's own is read, and never written.
IMPORTED = (*FORMATS, "csv")
#: Lines put aside that are shown one by one.
SHOWN = 20
_CHUNK = 10_000


def read_file(
    path: Path, kind: str, name: str, columns: Sequence[tuple[str, str]] = ()
) -> tuple[list[Feedback], list[Unusable]]:
    """Return the feedback of a file, and what was put aside; raises ``ConfigError`` where it cannot be read.

    ``columns`` are the roles and names of the columns of a CSV table.
    """
    from training.formats import READERS, Unusable, read_csv_table

    reader = READERS[kind]
    if kind == "csv":
        ignored = [column for role, column in columns if role == "ignore"]
        reader = partial(read_csv_table, columns=dict(columns), ignored=ignored)
    feedbacks: list[Feedback] = []
    aside: list[Unusable] = []
    try:
        # What is no UTF-8 stays in its line, which is then put aside or comes as text with a replacement.
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for read in reader(file, name):
                if isinstance(read, Unusable):
                    aside.append(read)
                else:
                    feedbacks.append(read)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return feedbacks, aside


def read_archive(directory: Path, name: str, point: DecisionPoint) -> Dataset:
    """Return all of an archive's feedback of a decision point; raises ``ConfigError`` where there is none."""
    from training.archive import ArchiveReader

    dataset = ArchiveReader(directory).read(name, point, 0)
    if not len(dataset):
        raise ConfigError(f"--log {directory}: no feedback of {name} is archived there")
    return dataset


def to_dataset(
    feedbacks: list[Feedback], name: str, point: DecisionPoint | None, path: Path
) -> tuple[Dataset, DecisionPoint, int]:
    """Return feedback as a dataset in the order of time, its decision point, and how many rows do not fit it.

    The decision point is inferred where none is given.
    """
    from training.archive.columns import to_table
    from training.archive.encoding import encode
    from training.dataset import Dataset
    from training.formats import infer

    if not feedbacks:
        raise ConfigError(f"{path}: has no line that is feedback")
    known = point or infer(feedbacks)
    fitting = [feedback for feedback in feedbacks if fits(known, feedback) is None]
    if not fitting:
        raise ConfigError(f"{path}: nothing fits the decision point {name}: {fits(known, feedbacks[0])}")
    fitting.sort(key=lambda feedback: feedback.decision.time_ms)
    datasets = [
        encode(batch, known, str(path))
        for begin in range(0, len(fitting), _CHUNK)
        for batch in to_table(known, fitting[begin : begin + _CHUNK]).to_batches()
    ]
    return Dataset.concatenate(datasets), known, len(feedbacks) - len(fitting)


def fits(point: DecisionPoint, feedback: Feedback) -> str | None:
    """Return why feedback does not fit a decision point, or ``None`` where it does."""
    from engine.features import Encoder

    decision = feedback.decision
    low, high = point.reward.range
    if not low <= feedback.reward <= high:
        return f"reward {feedback.reward} lies outside the declared reward.range {[low, high]}"
    try:
        Encoder(point).encode(decision.context, decision.actions, decision.packed_actions)
    except InvalidRequest as error:
        return str(error)
    return None


def read_columns(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return roles and names of columns as they were given on the command line."""
    from training.formats.csv_table import ROLES

    columns: list[tuple[str, str]] = []
    for text in given:
        role, equals, name = text.partition("=")
        if role not in ROLES or not equals or not name:
            raise click.BadParameter(f"{text!r}: write ROLE=NAME with a role of {', '.join(ROLES)}")
        if role != "ignore" and role in dict(columns):
            raise click.BadParameter(f"{text!r}: {role} is {dict(columns)[role]!r} already")
        columns.append((role, name))
    return columns


@click.command("import")
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "kind", type=click.Choice(IMPORTED), required=True, help="What the file is.")
@click.option(
    "--column",
    "columns",
    metavar="ROLE=NAME",
    multiple=True,
    callback=read_columns,
    help="Of a csv: which column is action, reward, propensity (or propensity=uniform), time, decision_id, "
    "or to ignore; all others are context.",
)
@click.option("--decision-point", "name", help="Whose feedback it becomes; needed where several are configured.")
@click.option("--infer", "infer_only", is_flag=True, help="Print the configuration that the file calls for, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def import_log(
    config_path: Path,
    file: Path,
    kind: str,
    columns: list[tuple[str, str]],
    name: str | None,
    infer_only: bool,
    as_json: bool,
) -> None:
    """Put the feedback of a log made elsewhere into the archive, from where `leeway retrain` learns.

    Lines that cannot be used are named with their numbers and put aside; exit 1 if nothing could be used. A decision
    that the archive has already is passed over, so that a file may be imported again.
    """
    if columns and kind != "csv":
        raise click.UsageError(f"--column is for --format csv; {kind} has columns of its own")
    if infer_only:
        from training.formats import as_yaml, infer

        feedbacks, aside = read_file(file, kind, name or "imported", columns)
        _tell_aside(file, aside)
        click.echo(as_yaml(name or "imported", infer(feedbacks)), nl=False)
        return
    config = load_config(config_path)
    point_name = _point(config, name)
    point = config.points()[point_name]
    feedbacks, aside = read_file(file, kind, point_name, columns)
    imported, known, rejected = _archive(config, point_name, point, _now(feedbacks))
    _tell_aside(file, aside)
    for identity, reason in rejected[:SHOWN]:
        click.echo(f"{file}: decision {shortened(identity)} put aside: {shortened(reason, 300)}", err=True)
    if as_json:
        print_json(
            {
                "decision_point": point_name,
                "imported": imported,
                "known_already": known,
                "put_aside": [{"line": each.line, "reason": each.reason} for each in aside]
                + [{"decision_id": identity, "reason": reason} for identity, reason in rejected],
            }
        )
    else:
        click.echo(
            f"{imported} feedbacks imported into {point_name}, {known} were there already, "
            f"{len(aside) + len(rejected)} put aside"
        )
    sys.exit(int(not imported and not known))


@click.command("export")
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--decision-point", "name", help="Whose feedback; needed where several are configured.")
@click.option("--since-ms", type=int, default=0, help="Of decisions from this time on (milliseconds since 1970).")
@click.option("--until-ms", type=int, help="Of decisions before this time.")
@actionable
def export_log(config_path: Path, file: Path, kind: str, name: str | None, since_ms: int, until_ms: int | None) -> None:
    """Write archived feedback to FILE (-: standard output) for another system."""
    from training.archive import ArchiveReader
    from training.archive.records import to_feedback
    from training.formats import WRITERS

    config = load_config(config_path)
    point = _point(config, name)
    reader = ArchiveReader(config.archive_dir)
    feedbacks = (
        feedback for batch in reader.batches(point, since_ms, until_ms) for feedback in to_feedback(batch, point)
    )
    seen: list[str] = []
    with _opened(file) as out:
        for line in WRITERS[kind](_noted(feedbacks, seen)):
            out.write(line + "\n")
    count = len(seen)
    click.echo(f"{count} feedbacks of {point} exported as {kind}", err=True)
    if not count:
        raise LeewayError(f"no feedback of {point} is archived in that time; see: leeway doctor")


def _point(config: Config, name: str | None) -> str:
    points = list(config.decision_points)
    if name is None and len(points) == 1:
        return points[0]
    if name not in points:
        raise ConfigError(f"--decision-point {name or 'is missing'}: choose one of {', '.join(points)}")
    return name


def _now(feedbacks: list[Feedback]) -> list[Feedback]:
    """Give the feedback of a file without times those just before now."""
    if not any(feedback.decision.time_ms for feedback in feedbacks):
        first = time.time_ns() // 1_000_000 - len(feedbacks)
        for number, feedback in enumerate(feedbacks):
            feedback.decision.time_ms = feedback.reward_time_ms = first + number
    return feedbacks


def _archive(
    config: Config, name: str, point: DecisionPoint, feedbacks: list[Feedback]
) -> tuple[int, int, list[tuple[str, str]]]:
    """Archive what is new and fits; return how much that is, how much was there, and what does not fit with why."""
    from training.archive import ArchiveReader, ArchiveWriter

    with ArchiveWriter(config.archive_dir, {name: point}) as writer:
        known = {
            identity
            for batch in ArchiveReader(config.archive_dir).batches(name)
            for identity in batch.column("decision_id").to_pylist()
        }
        new: dict[str, Feedback] = {}
        rejected: list[tuple[str, str]] = []
        repeated = 0
        for feedback in feedbacks:
            identity = feedback.decision.decision_id
            feedback.decision.decision_point = name
            reason = fits(point, feedback)
            if identity in known or identity in new:
                repeated += 1
            elif reason is not None:
                rejected.append((identity, reason))
            else:
                new[identity] = feedback
        refused = writer.append(list(new.values()), {})
        rejected += [(each.feedback.decision.decision_id, each.reason) for each in refused]
        return len(new) - len(refused), repeated, rejected


def _tell_aside(file: Path, aside: list[Unusable]) -> None:
    for each in aside[:SHOWN]:
        click.echo(f"{file}:{each.line}: put aside: {shortened(each.reason, 300)}", err=True)
    if len(aside) > SHOWN:
        click.echo(f"{file}: {len(aside) - SHOWN} more lines put aside", err=True)


def _noted(feedbacks: Iterable[Feedback], seen: list[str]) -> Iterator[Feedback]:
    for feedback in feedbacks:
        seen.append(feedback.decision.decision_id)
        yield feedback


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    if str(file) == "-":
        yield sys.stdout
        return
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            yield out
    except OSError as error:
        raise LeewayError(f"{file}: cannot be written ({error.strerror})") from error
