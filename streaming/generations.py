"""``leeway generations``, ``leeway promote`` and ``leeway rollback``: the lineage of policies, looked at and moved."""

from __future__ import annotations

import math
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streaming.config import Config
from streaming.opening import open_existing, open_log
from streaming.options import actionable, chosen_point, config_option, log_config, point_option, print_json
from streaming.topics import TRAINING

if TYPE_CHECKING:
    from training.generations import GenerationRow, GenerationTable
    from training.promotion import Move

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")


@click.command()
@config_option
@point_option
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the ledger here, as PNG.")
@_JSON
@actionable
def generations(config_path: Path, point: str | None, plot: Path | None, as_json: bool) -> None:
    """Show what each generation was expected to earn and earned, and whether generations oscillate."""
    config = log_config(config_path)
    name = chosen_point(config, point, recommenders=True)
    from streaming.retraining import generation_table

    with closing(open_existing(config)) as log:
        found = generation_table(config, name, log)
    if plot is not None:
        from streaming.generations_plot import draw

        draw(plot, name, found)
    if as_json:
        print_json(table_facts(name, found))
        return
    for line in _lines(found):
        click.echo(line)


@click.command()
@config_option
@point_option
@click.option("--version", help="This version of the registry; default: the challenger.")
@click.option("--force", is_flag=True, help="Also one that the gate refused, or while an alarm holds promotions.")
@_DRY_RUN
@_JSON
@actionable
def promote(
    config_path: Path, point: str | None, version: str | None, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Make a version of the registry champion by hand.

    Exit status: 0 promoted or nothing to do, 1 try again, 2 usage, 3 there is no such version, 4 the gate had refused
    it, 5 a retraining runs, 6 an alarm holds promotions.
    """
    config = log_config(config_path)
    name = chosen_point(config, point, recommenders=True)
    from streaming.holds import read_holds
    from streaming.retraining import floor_of
    from streaming.serve import now_ms
    from training import promotion

    with closing(open_log(config, {TRAINING})) as log:
        move = promotion.promote(
            floor_of(config, name, log),
            now_ms(),
            version=version,
            force=force,
            dry_run=dry_run,
            hold=lambda: read_holds(log).words(name),
        )
    _end(move, as_json)


@click.command()
@config_option
@point_option
@click.option("--generation", type=click.IntRange(min=1), help="To this one; default: the champion before.")
@click.option("--if-disappointing", is_flag=True, help="Only if the champion earns less than was estimated of it.")
@_DRY_RUN
@_JSON
@actionable
def rollback(
    config_path: Path,
    point: str | None,
    generation: int | None,
    if_disappointing: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the champion before this one champion again, as a new generation.

    Exit status: 0 done or nothing to do, 1 try again, 2 usage, 3 there is nothing to go back to, 5 a retraining runs.
    """
    config = log_config(config_path)
    name = chosen_point(config, point, recommenders=True)
    from streaming.retraining import floor_of
    from streaming.serve import now_ms
    from training import promotion
    from training.job import ExitCode

    with closing(open_log(config, {TRAINING})) as log:
        why: str | None = "by hand"
        if if_disappointing:
            why = disappointing(config, name, log)
        if why is None:
            words = f"nothing to do: nothing shows that the champion of {name} earns less than was estimated"
            move = promotion.Move(ExitCode.PROMOTED, words)
        else:
            floor = floor_of(config, name, log)
            move = promotion.rollback(floor, now_ms(), generation=generation, why=why, dry_run=dry_run)
    _end(move, as_json)


def disappointing(config: Config, name: str, log: Any) -> str | None:
    """Say why the acting generation of a decision point is to be undone; ``None``: it is not."""
    from streaming.monitor import read_statistics, reward_range
    from streaming.retraining import LogLedger
    from training.disappointment import disappointment

    point = config.deciding[name]
    mine = [entry for entry in read_statistics(log) if entry.decision_point == name]
    return disappointment(LogLedger(log).generations(name), mine, point.retraining.rollback, reward_range(point))


def _end(move: Move, as_json: bool) -> None:
    if as_json:
        print_json(move.report())
    else:
        click.echo(move.words, err=move.exit_code != 0)
    sys.exit(int(move.exit_code))


def _lines(found: GenerationTable) -> list[str]:
    if not found.rows:
        return ["no generation has acted yet"]
    head = (
        "gen",
        "feedback",
        "reward (95 %)",
        "estimate",
        "kept",
        "positives",
        "entropy",
        "support",
        "calib.",
        "moved",
    )
    table = [head, *(_cells(row) for row in found.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines += [f"g{row.generation}: {row.verdict}" for row in found.rows if row.verdict]
    return [*lines, state_words(found), *attribution_words(found)]


def _cells(row: GenerationRow) -> tuple[str, ...]:
    low, high = row.interval
    before = row.distances.get(max(row.distances)) if row.distances else None
    return (
        str(row.generation),
        str(row.feedback),
        f"{row.reward:.4f} ({low:.4f} to {high:.4f})",
        "" if math.isnan(row.estimate) else f"{row.estimate:.4f}",
        row.kept,
        f"{row.positives:.3f}",
        f"{row.entropy:.3f}",
        _or_blank(row.support),
        _or_blank(row.calibration),
        "" if before is None else f"{before:.3f}",
    )


def _or_blank(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def state_words(found: GenerationTable) -> str:
    """Say whether the generations oscillate, with which error that is said, and what follows."""
    state = found.state
    if state.judged is None:
        from monitoring.oscillation import LEAST

        return f"oscillation: not judged yet; it is from {LEAST} generations after the first on"
    judged = state.judged
    numbers = f"p {judged.p_value:.4f} at level {judged.level:.4f}, {judged.generations} generations"
    damped = "; the next generation is damped" if state.damped else ""
    if state.declared is None:
        return f"oscillation: none is declared ({numbers}){damped}"
    return (
        f"oscillation: declared after generation {state.declared}: period {judged.period}, amplitude "
        f"{judged.amplitude:.4f} (standard error {judged.amplitude_error:.4f}; {numbers}){damped}"
    )


def attribution_words(found: GenerationTable) -> list[str]:
    """Say what moved together with the reward."""
    return [
        f"{each.name}: correlation {each.correlation:+.2f} ({each.low:+.2f} to {each.high:+.2f}), p {each.p_value:.4f}"
        + (", moved with the reward" if each.moved else "")
        for each in found.attribution
        if not math.isnan(each.correlation)
    ]


def table_facts(name: str, found: GenerationTable) -> dict[str, Any]:
    """Return the table of a decision point as plain JSON values; what is no number is null."""
    from dataclasses import asdict

    judged = found.state.judged
    return {
        "decision_point": name,
        "generations": [
            {key: _finite(value) for key, value in asdict(row).items()}
            | {"low": _finite(row.interval[0]), "high": _finite(row.interval[1]), "kept": row.kept}
            for row in found.rows
        ],
        "oscillation": {
            "declared_after": found.state.declared,
            "damped": found.state.damped,
            "judged": None if judged is None else {key: _finite(value) for key, value in asdict(judged).items()},
            "words": state_words(found),
        },
        "attribution": [{key: _finite(value) for key, value in asdict(each).items()} for each in found.attribution],
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
