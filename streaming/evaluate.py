"""``leeway evaluate``: what policies would have earned, by archived feedback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streaming.config import load_config
from streaming.options import actionable, chosen_point, config_option, fail, print_json

if TYPE_CHECKING:
    from streaming.evaluating import Answer
    from training.config import CalibrationName, PropensityName, RewardModelName

#: As ``leeway retrain`` has it.
NOT_ENOUGH_DATA = 3
#: Names in ``training.evaluation.INTERVALS``, which would take a second to import.
_INTERVALS = ("student", "bootstrap", "empirical_bernstein", "betting", "predictable_plug_in", "gamma_mixture")


@click.command()
@config_option
@click.option("--decision-point", "point", help="Which; needed where several are configured.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="WHICH",
    help="logging (those that acted), current, champion, challenger or a version; repeat it for several. "
    "Default: logging and current.",
)
@click.option("--estimator", "estimators", multiple=True, metavar="NAME", help="Repeat it for several; default: all.")
@click.option("--since-ms", type=int, help="Decisions from this time on (milliseconds since 1970).")
@click.option("--until-ms", type=int, help="Decisions before this time; default: now.")
@click.option("--last", type=click.IntRange(min=1), help="The newest so many of them alone.")
@click.option("--min-rows", type=click.IntRange(min=2), help="Fewer are not enough; default: gate.min_events.")
@click.option("--interval", type=click.Choice(_INTERVALS), default="student", show_default=True)
@click.option(
    "--confidence",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of each two-sided interval.",
)
@click.option("--reward-model", type=click.Choice(["ridge", "configured", "lightgbm"]), help="Default: as configured.")
@click.option(
    "--propensities", type=click.Choice(["logged", "logistic", "lightgbm"]), help="Logged or estimated; as configured."
)
@click.option("--calibration", type=click.Choice(["temperature", "isotonic"]), help="Of estimated propensities.")
@click.option("--clusters", type=click.IntRange(min=1), help="Group the actions by their features, for mips.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Write a page and plots into here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def evaluate(
    config_path: Path,
    point: str | None,
    policies: tuple[str, ...],
    estimators: tuple[str, ...],
    since_ms: int | None,
    until_ms: int | None,
    last: int | None,
    min_rows: int | None,
    interval: str,
    confidence: float,
    reward_model: RewardModelName | None,
    propensities: PropensityName | None,
    calibration: CalibrationName | None,
    clusters: int | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Estimate from archived feedback what policies would have earned; nothing is changed.

    Exit status: 0 estimated, 1 try again (archive, registry or disk failed), 2 usage, 3 not enough data.
    """
    config = load_config(config_path)
    name = chosen_point(config, point)
    from streaming import evaluating
    from streaming.serve import now_ms

    settings = config.decision_points[name].retraining
    end_ms = now_ms() if until_ms is None else until_ms
    question = evaluating.Question(
        point=name,
        policies=policies or (evaluating.LOGGING, evaluating.CURRENT),
        start_ms=end_ms - settings.window if since_ms is None else since_ms,
        end_ms=end_ms,
        last=last,
        estimators=estimators,
        interval=interval,
        confidence=confidence,
        reward_model=reward_model or settings.reward_model,
        propensities=propensities or settings.propensities,
        calibration=calibration or settings.propensity_calibration,
        clusters=clusters,
    )
    dataset = evaluating.window(config, question)
    least = settings.gate.min_events if min_rows is None else min_rows
    if len(dataset) < least:
        fail(
            f"{len(dataset)} feedbacks of {name} in the window of at least {least} (--min-rows); wait for more, or "
            "widen the window (--since-ms)",
            NOT_ENOUGH_DATA,
        )
    answer = evaluating.evaluate(config, question, dataset, lambda words: click.echo(words, err=True))
    for words in answer.warnings:
        click.echo(f"warning: {words}", err=True)
    if as_json:
        print_json(answer.facts())
    else:
        _print(answer)
    if report is not None:
        written = evaluating.write_report(answer, report)
        click.echo(f"written: {', '.join(str(path) for path in written)}", err=True)


def _print(answer: Answer) -> None:
    asked = answer.question
    for name, found in answer.evaluations.items():
        version = answer.versions.get(name)
        click.echo(f"{name}{f' ({version})' if version else ''}: {answer.rows} feedbacks of {asked.point}")
        click.echo(
            f"  {'estimator':<14}{'value':>10}{'low':>10}{'high':>10}  ({asked.confidence:.4g}, {asked.interval})"
        )
        for key, estimate in found.estimates.items():
            click.echo(f"  {key:<14}{estimate.value:>10.5f}{estimate.low:>10.5f}{estimate.high:>10.5f}")
        shared = next(iter(found.estimates.values()))
        click.echo(
            f"  effective sample size {shared.effective_sample_size:.1f}, greatest weight {shared.max_weight:.2f}, "
            f"mean weight {shared.mean_weight:.3f}"
        )
        click.echo(
            f"  the top 1 % of the rows have {found.tail.share:.1%} of the weight (Hill index {found.tail.hill:.2f}); "
            f"{found.unsupported:.2%} unsupported; {found.divergence.total_variation:.1%} of decisions would be others"
        )
