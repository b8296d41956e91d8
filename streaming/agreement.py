"""``leeway agreement``: how often an apprentice would have done what its caller did."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import click

from engine.agreement import agreement as agreement_of
from engine.errors import LeewayError
from engine.records import Decision
from monitoring.confidence_sequence import radius
from streaming.intake import newest, parsed
from streaming.log import Log
from streaming.opening import open_existing
from streaming.options import actionable, chosen_point, config_option, log_config, point_option, print_json
from streaming.topics import DECISIONS

#: Probability with which the interval misses the share.
ERROR = 0.05


def agreements(log: Log, name: str, last: int) -> list[float]:
    """Return how far an apprentice agreed in each of its decisions among about the last ones in the log.

    Parameters
    ----------
    log
        Where the decisions are.
    name
        The decision point.
    last
        How many decisions, of all decision points, are looked at.
    """
    made = [parsed(record, Decision) for record in newest(log, DECISIONS, last)]
    found = [agreement_of(decision) for decision in made if decision is not None and decision.decision_point == name]
    return [share for share in found if share is not None]


@click.command()
@config_option
@point_option
@click.option(
    "--last", type=click.IntRange(1), default=2_000, show_default=True, help="So many of the newest decisions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def agreement(config_path: Path, point: str | None, last: int, as_json: bool) -> None:
    """Say how often the policy of mode apprentice would have done what the caller did."""
    config = log_config(config_path)
    name = chosen_point(config, point)
    with closing(open_existing(config)) as log:
        found = agreements(log, name, last)
    if not found:
        raise LeewayError(
            f"{name}: among the last {last} decisions none is an apprentice's; set decision_points.{name}.mode: "
            "apprentice, and call Decide"
        )
    share = math.fsum(found) / len(found)
    reach = radius(len(found), ERROR, 1.0)
    low, high = max(0.0, share - reach), min(1.0, share + reach)
    if as_json:
        print_json({"decision_point": name, "decisions": len(found), "agreement": share, "low": low, "high": high})
    else:
        click.echo(f"{name}: agrees in {share:.1%} ({low:.1%} to {high:.1%}) of {len(found)} decisions")
