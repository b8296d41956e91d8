"""``leeway drift``: alarms looked at, explained and acknowledged; what they may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import LeewayError, SnapshotError
from engine.records import Alarm, Direction
from monitoring.allocation import MONTH_MS
from monitoring.dependence import lag_one
from monitoring.equilibrium import Equilibrium, fit
from monitoring.reactions import names
from streaming.config import Config
from streaming.holds import Holds, acknowledge, read_alarms, read_holds
from streaming.log import Log
from streaming.opening import open_existing, open_log
from streaming.options import actionable, config_option, log_config, print_json, shortened
from streaming.topics import OPERATOR

if TYPE_CHECKING:
    from monitoring.watch import PointWatch

_POINT = click.option("--decision-point", "point", help="Of this one alone.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
#: From such a correlation on, a stationary stream alarms about three times as often as its level says, or more.
_DEPENDENT = 0.1


@click.group()
def drift() -> None:
    """Look at what the monitors report, and acknowledge it."""


@drift.command("list")
@config_option
@_POINT
@click.option("--all", "everything", is_flag=True, help="Also changes that the policy itself explains.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@_JSON
@actionable
def list_alarms(config_path: Path, point: str | None, everything: bool, limit: int, as_json: bool) -> None:
    """List alarms, the newest last; those of one incident stand below its first. --json has the equilibria too.

    Changes that the policy itself explains, and echoes of an alarm from which nothing follows, are left out without
    --all.
    """
    config = log_config(config_path)
    with closing(open_existing(config)) as log:
        alarms = read_alarms(log)
        holds = read_holds(log, alarms)
        watches = _watches(config, log, point)
    wanted = [a for a in alarms if point in (None, a.decision_point) and (everything or stands_alone(a))]
    shown = wanted[-limit:]
    echoes = echoes_of(alarms)
    equilibria = {name: {key: fit(series) for key, series in watch.divergences().items()} for name, watch in watches}
    if as_json:
        print_json(
            {
                "alarms": [alarm_facts(alarm, holds, echoes) for alarm in shown],
                "held": {name: holds.words(name) for name in config.deciding if holds.of(name)},
                "equilibria": {
                    name: {key: equilibrium_facts(found) for key, found in streams.items()}
                    for name, streams in equilibria.items()
                },
            }
        )
        return
    for alarm in shown:
        _print(alarm, holds, equilibria.get(alarm.decision_point, {}), echoes)
    if not shown:
        click.echo("no alarms", err=True)
    elif len(wanted) > len(shown):
        click.echo(f"{len(wanted) - len(shown)} older ones: see --limit", err=True)
    for name in config.deciding:
        if (words := holds.words(name)) is not None:
            click.echo(f"{name}: {words}", err=True)


@drift.command()
@config_option
@click.argument("alarm_id")
@click.option("--note", default="", help="What came of it; kept in the log.")
@actionable
def ack(config_path: Path, alarm_id: str, note: str) -> None:
    """Acknowledge ALARM_ID (its beginning is enough): what it holds is released."""
    with closing(open_log(log_config(config_path), {OPERATOR})) as log:
        alarms = read_alarms(log)
        alarm = _alarm(alarms, alarm_id)
        if alarm.alarm_id in read_holds(log, alarms).acknowledged:
            click.echo(f"{alarm.alarm_id} was acknowledged before")
            return
        acknowledge(log, alarm, note)
        words = read_holds(log, alarms).words(alarm.decision_point)
    click.echo(f"{alarm.alarm_id} is acknowledged" + (f"; {words}" if words else ""))


@drift.command()
@config_option
@click.argument("alarm_id")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw the stream here.")
@_JSON
@actionable
def explain(config_path: Path, alarm_id: str, png: Path | None, as_json: bool) -> None:
    """Say everything about ALARM_ID (its beginning is enough); --png draws the stream around the change."""
    from streaming.drift_history import history_of

    config = log_config(config_path)
    with closing(open_existing(config)) as log:
        alarms = read_alarms(log)
        alarm = _alarm(alarms, alarm_id)
        holds = read_holds(log, alarms)
        watch = dict(_watches(config, log, alarm.decision_point)).get(alarm.decision_point)
        key = key_of(alarm)
        series = None if watch is None else watch.divergences().get(key)
        history = None if watch is None else history_of(log, alarm, watch, key)
    equilibrium = None if series is None else fit(series)
    if png is not None:
        if history is None:
            raise LeewayError(
                f"alarm {alarm.alarm_id}: cannot be drawn, for {key} is not watched any more, or its feedback is not "
                "in the log any more; without --png there is all that the alarm says"
            )
        from streaming.drift_plot import draw

        draw(png, alarm, history, series)
    correlation = None if history is None else lag_one(history.categories[history.time_ms < alarm.change_ms])
    echoes = echoes_of(alarms)
    facts = alarm_facts(alarm, holds, echoes) | {
        "equilibrium": None if equilibrium is None else equilibrium_facts(equilibrium),
        "lag_one_before": None if correlation is None or math.isnan(correlation) else correlation,
    }
    if as_json:
        print_json(facts)
        return
    _print(alarm, holds, {} if equilibrium is None else {key: equilibrium}, echoes)
    click.echo(f"  change about {_time(alarm.change_ms)}, found {_time(alarm.detected_ms)}")
    click.echo(f"  evidence {alarm.evidence:.2f} nats: probability of a change {alarm.probability:.3f}")
    if facts["lag_one_before"] is not None:
        verdict = "independent enough" if facts["lag_one_before"] < _DEPENDENT else "the level does not hold for it"
        click.echo(f"  lag-1 correlation before the change {facts['lag_one_before']:+.2f}: {verdict}")
    before, after = sum(alarm.counts_before), sum(alarm.counts_after)
    if before and after:
        click.echo(f"  {'category':<24}{'before':>9}{'after':>9}")
        for name, old, new in zip(alarm.categories, alarm.counts_before, alarm.counts_after, strict=True):
            click.echo(f"  {shortened(name, 22):<24}{old / before:>9.1%}{new / after:>9.1%}")
    if png is not None:
        click.echo(f"  drawn in {png}")


@drift.command()
@config_option
@_POINT
@click.option("--moved", type=click.FloatRange(0.01, 0.99), default=0.2, show_default=True,
              help="The change that is to be found: this share of the observations moves.")  # fmt: skip
@_JSON
@actionable
def budget(config_path: Path, point: str | None, moved: float, as_json: bool) -> None:
    """Show what false alarms each stream may raise, and how soon it finds a change."""
    config = log_config(config_path)
    with closing(open_existing(config)) as log:
        watches = _watches(config, log, point)
    found: dict[str, Any] = {}
    for name, watch in watches:
        delays = watch.delays(moved)
        found[name] = {
            "false_alarms_per_month": watch.config.false_alarms_per_month,
            "feedbacks_per_month": watch.world.feedbacks_per_month,
            "sample": watch.sample,
            "streams": [
                {
                    "monitor": a.monitor,
                    "stream": a.stream,
                    "false_alarms_per_month": a.per_month,
                    "observations_per_month": a.observations_per_month,
                    "delay_observations": delays.get(f"{a.monitor}:{a.stream}" if a.stream else a.monitor),
                }
                for a in watch.allocations()
            ],
        }
        for stream in found[name]["streams"]:
            delay, rate = stream["delay_observations"], stream["observations_per_month"]
            stream["delay_seconds"] = None if delay is None else delay * MONTH_MS / 1_000 / max(rate, 1e-9)
    if as_json:
        print_json(found)
        return
    for name, facts in found.items():
        _print_budget(name, facts, moved)
    if not found:
        click.echo("nothing is watched yet; start it with: leeway up", err=True)


def _print_budget(name: str, facts: Mapping[str, Any], moved: float) -> None:
    streams = facts["streams"]
    total = sum(stream["false_alarms_per_month"] for stream in streams)
    rate = facts["feedbacks_per_month"]
    traffic = (
        "traffic not known before the reference window is full" if rate is None else f"{rate:.3g} feedbacks a month"
    )
    click.echo(
        f"{name}: {total:.3g} false alarms a month of {facts['false_alarms_per_month']:g} allowed, over "
        f"{len(streams)} streams; {traffic}; {facts['sample']:.0%} of them looked at"
    )
    click.echo(
        f"  {'stream':<40}{'false alarms a month':>22}{'finds a move of ' + format(moved, '.0%') + ' after':>34}"
    )
    for stream in streams:
        label = f"{stream['monitor']} {stream['stream']}".strip()
        delay = stream["delay_observations"]
        words = "not at all" if delay is None else f"{delay} observations, {_duration(stream['delay_seconds'])}"
        click.echo(f"  {shortened(label, 38):<40}{stream['false_alarms_per_month']:>22.4f}{words:>34}")


@drift.command()
@config_option
@actionable
def tag(config_path: Path) -> None:
    """Write the alarms since each champion was promoted to it as tags, in MLflow; `leeway work` does so by itself."""
    from streaming.alarm_tags import tag_champions

    config = log_config(config_path)
    with closing(open_existing(config)) as log:
        count = tag_champions(config, log)
    click.echo(f"{count} alarms are tags of their champions")


def key_of(alarm: Alarm) -> str:
    """Return the name of the stream of an alarm in one text."""
    return f"{alarm.monitor}:{alarm.stream}" if alarm.stream else alarm.monitor


def equilibrium_facts(found: Equilibrium) -> dict[str, Any]:
    """Return a fitted process as plain JSON values; what is no number is null."""

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "course": found.course.value,
        "level": number(found.level),
        "low": number(found.low),
        "high": number(found.high),
        "rate_per_block": number(found.rate),
        "half_life_blocks": number(found.half_life),
        "spread": number(found.spread),
        "last": number(found.last),
        "blocks": found.steps,
    }


def _watches(config: Config, log: Log, point: str | None) -> list[tuple[str, PointWatch]]:
    from streaming.monitor import read_watch

    found = []
    for name, settings in config.deciding.items():
        if point not in (None, name):
            continue
        try:
            watch = read_watch(log, name, settings)
        except SnapshotError as error:
            raise LeewayError(f"{name}: {error}") from error
        if watch is not None:
            found.append((name, watch))
    if point is not None and point not in config.deciding:
        raise LeewayError(f"--decision-point {point}: not configured; known are: {', '.join(config.deciding)}")
    return found


def _alarm(alarms: list[Alarm], beginning: str) -> Alarm:
    found = {alarm.alarm_id: alarm for alarm in alarms if alarm.alarm_id.startswith(beginning)}
    if not found:
        raise LeewayError(f"alarm {beginning!r}: there is none; see: leeway drift list --all")
    if len(found) > 1:
        raise LeewayError(f"alarm {beginning!r}: {len(found)} begin like that; give more of it")
    return next(iter(found.values()))


def stands_alone(alarm: Alarm) -> bool:
    """Say whether it is something to look at: neither explained nor an echo from which nothing follows."""
    return not alarm.explained and (not alarm.echo_of or bool(alarm.reactions))


def echoes_of(alarms: Iterable[Alarm]) -> dict[str, list[str]]:
    """Return by alarm id the streams that saw the same change of the reward."""
    found: dict[str, list[str]] = {}
    for alarm in alarms:
        if alarm.echo_of:
            found.setdefault(alarm.echo_of, []).append(f"{alarm.monitor} {alarm.stream}".strip())
    return found


def alarm_facts(alarm: Alarm, holds: Holds, echoes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return an alarm, its acknowledgement and its echoes as plain JSON values."""
    acknowledged = holds.acknowledged.get(alarm.alarm_id)
    return {
        "alarm_id": alarm.alarm_id,
        "incident": alarm.incident,
        "echo_of": alarm.echo_of,
        "echoes": list(echoes.get(alarm.alarm_id, ())),
        "decision_point": alarm.decision_point,
        "monitor": alarm.monitor,
        "stream": alarm.stream,
        "detected_ms": alarm.detected_ms,
        "change_ms": alarm.change_ms,
        "direction": Direction.Name(alarm.direction).removeprefix("DIRECTION_").lower(),
        "mean_before": alarm.mean_before,
        "mean_after": alarm.mean_after,
        "count_before": alarm.count_before,
        "count_after": alarm.count_after,
        "categories": list(alarm.categories),
        "counts_before": list(alarm.counts_before),
        "counts_after": list(alarm.counts_after),
        "effect": alarm.effect,
        "evidence": alarm.evidence,
        "probability": alarm.probability,
        "explained": alarm.explained,
        "reactions": names(alarm),
        "explanation": alarm.explanation,
        "remedy": alarm.remedy,
        "acknowledged_ms": None if acknowledged is None else acknowledged.time_ms,
        "note": "" if acknowledged is None else acknowledged.note,
    }


def _print(
    alarm: Alarm, holds: Holds, equilibria: Mapping[str, Equilibrium], echoes: Mapping[str, Sequence[str]]
) -> None:
    indent = "" if alarm.incident in ("", alarm.alarm_id) else "    "
    marks = ["explained"] if alarm.explained else ["echo"] if alarm.echo_of else []
    marks += names(alarm)
    if alarm.alarm_id in holds.acknowledged:
        marks.append("acknowledged")
    found = equilibria.get(key_of(alarm))
    if found is not None and math.isfinite(found.level):
        marks.append(f"{found.course.value} at {found.level:.2f} ({found.low:.2f} to {found.high:.2f})")
    # Names come from those who send requests.
    label = shortened(f"{alarm.decision_point} {alarm.monitor} {alarm.stream}".strip(), 80)
    click.echo(
        f"{indent}{alarm.alarm_id[:12]}  {_time(alarm.change_ms)}  {label}"
        + (f"  [{', '.join(marks)}]" if marks else "")
    )
    click.echo(f"{indent}  {shortened(alarm.explanation, 600)}")
    if alarm.alarm_id in echoes:
        click.echo(f"{indent}  Seen in these streams too: {shortened(', '.join(echoes[alarm.alarm_id]), 300)}.")
    if alarm.remedy:
        click.echo(f"{indent}  {alarm.remedy}")


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
