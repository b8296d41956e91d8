"""``leeway rollout``: a challenger is tried beside the champion, looked at, and promoted or dropped."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import click

from engine.config import Challenger, TextFeature
from engine.errors import ConfigError, LeewayError
from engine.records import Feedback
from streaming.intake import feedback_of
from streaming.log import Log
from streaming.opening import open_existing, open_log
from streaming.options import actionable, chosen_point, config_option, log_config, point_option, print_json
from streaming.topics import FEEDBACK, TRAINING

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def rollout() -> None:
    """Try a challenger on a share of the units, or as a shadow, before it is promoted."""


@rollout.command()
@config_option
@point_option
@click.option("--mode", type=click.Choice(["canary", "shadow"]), required=True)
@click.option("--share", type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True), default=0.1, show_default=True)
@click.option("--unit", default="", help="Text feature of the context whose value is the unit; default: each decision.")
@click.option("--version", help="This version of the registry; default: the challenger.")
@click.option("--force", is_flag=True, help="Also a canary of one that the gate refused.")
@actionable
def start(
    config_path: Path,
    point: str | None,
    mode: Literal["canary", "shadow"],
    share: float,
    unit: str,
    version: str | None,
    force: bool,
) -> None:
    """Begin to try a version of the registry; 3: there is none, 4: the gate had refused it."""
    config = log_config(config_path)
    name = chosen_point(config, point)
    mode_now = config.decision_points[name].mode
    if mode_now != "online":
        raise ConfigError(
            f"decision_points.{name}.mode is {mode_now}, in which no policy acts: there is no champion to "
            "try another one beside; set it to online"
        )
    if unit and not isinstance(config.decision_points[name].context.get(unit), TextFeature):
        raise ConfigError(f"--unit {unit}: is no context feature of type text of {name}; declare it, or leave it out")
    from streaming.retraining import promotion_floor
    from streaming.serve import now_ms
    from training.promotion import on_trial

    with closing(open_log(config, {TRAINING})) as log:
        found = on_trial(promotion_floor(config, name, log), version=version, force=force or mode == "shadow")
        if found.policy is None:
            click.echo(found.words, err=True)
            sys.exit(int(found.exit_code))
    from engine.store import PolicyStore  # it brings the oracles, which take long to import

    store = PolicyStore(config.policy_dir)
    store.save(found.policy)
    terms = Challenger(
        version=found.policy.version,
        mode=mode,
        share=share,
        unit=unit,
        started_ms=now_ms(),
        registry_version=found.version,
    )
    store.set_challenger(name, terms)
    acts = f"acts on {share:.0%} of the units" if mode == "canary" else "looks on"
    click.echo(f"{name}: {terms.version} {acts}; see: leeway rollout status")


@rollout.command()
@config_option
@point_option
@click.option("--error", type=click.FloatRange(0.0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option(
    "--decide", is_flag=True, help="End the trial if it is decided: promote what is better, drop what is worse."
)
@_JSON
@actionable
def status(config_path: Path, point: str | None, error: float, decide: bool, as_json: bool) -> None:
    """Say how much better the challenger is; the interval holds however often one looks."""
    config = log_config(config_path)
    name = chosen_point(config, point)
    from engine.store import PolicyStore  # it brings the oracles, which take long to import

    store = PolicyStore(config.policy_dir)
    terms = store.challenger(name)
    if terms is None:
        raise LeewayError(f"{name}: nothing is tried; begin with: leeway rollout start")
    from training.rollout import Comparison

    comparison = Comparison(terms, config.decision_points[name].reward.range, error)
    with closing(open_existing(config)) as log:
        for feedback in _feedback(log, name):
            comparison.update(feedback)
    difference, low, high = comparison.interval
    facts: dict[str, Any] = {
        "decision_point": name,
        **terms.model_dump(),
        "feedback": {"champion": comparison.champion.count, "challenger": comparison.challenger.count},
        "difference": difference if math.isfinite(difference) else None,
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "verdict": comparison.verdict,
    }
    if as_json:
        print_json(facts)
    else:
        known = f"{difference:+.4f} ({low:+.4f} to {high:+.4f})" if math.isfinite(low) else "not known yet"
        click.echo(f"{name}: {terms.mode} {terms.version}: {known}, {comparison.verdict}")
    if decide and comparison.verdict != "undecided":
        if comparison.verdict == "better":
            _promote(config, name, terms)
        store.set_challenger(name, None)
        click.echo(f"{name}: the trial is over", err=True)


@rollout.command()
@config_option
@point_option
@actionable
def stop(config_path: Path, point: str | None) -> None:
    """End the trial: the champion acts on everything again."""
    config = log_config(config_path)
    name = chosen_point(config, point)
    from engine.store import PolicyStore  # it brings the oracles, which take long to import

    PolicyStore(config.policy_dir).set_challenger(name, None)
    click.echo(f"{name}: nothing is tried")


def _promote(config: Any, name: str, terms: Challenger) -> None:
    from streaming.holds import read_holds
    from streaming.retraining import promotion_floor
    from streaming.serve import now_ms
    from training import promotion

    with closing(open_log(config, {TRAINING})) as log:
        held = read_holds(log).words(name)
        if held is not None:
            raise LeewayError(f"{name}: {terms.version} is better, but {held}; the trial goes on")
        # It was proved by the trial, whatever the gate had said.
        move = promotion.promote(
            promotion_floor(config, name, log), now_ms(), version=terms.registry_version, force=True
        )
    if move.exit_code != 0:
        raise LeewayError(f"{name}: {move.words}; the trial goes on")
    click.echo(move.words, err=True)


def _feedback(log: Log, name: str) -> Iterator[Feedback]:
    for partition in log.ends(FEEDBACK):
        start = 0
        while records := log.read(FEEDBACK, partition, start):
            start = records[-1].offset + 1
            for record in records:
                feedback = feedback_of(record)
                if feedback is not None and feedback.decision.decision_point == name:
                    yield feedback
