"""``leeway simulate``: a policy played on a table, on a log or in a made-up world."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine.config import WRITTEN, DecisionPoint, PolicyConfig
from engine.errors import ConfigError, LeewayError
from streaming.config import load_config
from streaming.options import DEFAULT_CONFIG, USAGE, actionable, fail, print_json
from training.config import LightGBMConfig

#: Decisions between two policies of online learning, where nothing is said.
PUBLISH = 10
MOST_SEEDS = 1_000


class Seeds(click.ParamType[tuple[int, ...]]):
    """``0-4``, ``7`` or ``1,3,5``."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the seeds in their order."""
        if isinstance(value, tuple):
            return value
        seeds: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part)
            if match is None:
                self.fail(f"{value!r} names no seeds; write such as 0-4, 7 or 1,3,5")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first or last - first >= MOST_SEEDS:
                self.fail(f"{part!r} names no seeds: write the lower number first, and at most {MOST_SEEDS} of them")
            seeds += range(first, last + 1)
        if len(set(seeds)) < len(seeds):
            self.fail(f"{value!r} names a seed twice")
        return tuple(seeds)


class Part(click.ParamType[dict[str, Any]]):
    """``kind``, ``kind:name=value,name=value``, or the YAML mapping that stands in a configuration."""

    name = "kind[:name=value,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the mapping; what it may hold is the configuration's matter."""
        text = str(value).strip()
        try:
            if text.startswith("{"):
                mapping = yaml.safe_load(text)
            else:
                kind, _, rest = text.partition(":")
                pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
                if any(not equals for _, equals, _ in pairs):
                    self.fail(f"{value!r}: write kind:name=value,name=value, such as squarecb:gamma_scale=100")
                mapping = {"kind": kind, **{name.strip(): yaml.safe_load(raw) for name, _, raw in pairs}}
        except yaml.YAMLError as error:
            self.fail(f"{value!r} is not readable as YAML: {error}")
        return dict(mapping)


def _share(**bounds: Any) -> click.FloatRange:
    return click.FloatRange(**{"min": 0.0, "max": 1.0, **bounds})


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Take the decision point from this configuration, such as {DEFAULT_CONFIG}.",
)
@click.option("--decision-point", "name", help="Which of it; needed where several are configured.")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Play a CSV, Parquet or .npz table.")
@click.option("--label", help="Its column with the right action, which earns 1; any other earns 0.")
@click.option(
    "--rewards", metavar="PREFIX", help="Its reward columns: one for each action, PREFIX and the action's id."
)
@click.option("--in-order", is_flag=True, help="Keep the order of its rows; otherwise each seed shuffles them.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="Replay a log: a dsjson, VW or Open Bandit file, or an archive's directory.",
)
@click.option("--format", "log_format", type=click.Choice(["dsjson", "vw", "obd"]), help="Of the log, if it is a file.")
@click.option("--multiplier", type=click.FloatRange(min=0.0, min_open=True), help="Of acceptance; default: adapted.")
@click.option("--problem", help="Play a made-up world: linear, logistic or drifting.")
@click.option("--oracle", type=Part(), help="Such as linear:ridge=0.1; in generations also lightgbm:trees=60.")
@click.option("--exploration", type=Part(), help="Such as squarecb:gamma_scale=1000,gamma_exponent=0.")
@click.option("--learning", help="What feedback teaches: plain, ips, mtr or dr.")
@click.option("--floor", type=_share(), default=0.0, show_default=True, help="Share of uniform exploration mixed in.")
@click.option("--seeds", type=Seeds(), default="0", show_default=True, help="Such as 0-4: one run for each.")
@click.option("--decisions", type=click.IntRange(min=1), help="Of a run; default: all rows, or 10000.")
@click.option("--generation", type=click.IntRange(min=1), help="Freeze the policy for so many decisions; fit in batch.")
@click.option(
    "--publish", type=click.IntRange(min=1), help=f"Online: decisions between two policies; default: {PUBLISH}."
)
@click.option("--delay", type=click.IntRange(min=0), default=0, show_default=True, help="Decisions until a reward.")
@click.option("--window", type=click.IntRange(min=1), help="Learn from so many generations, or feedbacks, alone.")
@click.option(
    "--available", type=_share(min_open=True), default=1.0, show_default=True, help="Share of actions offered."
)
@click.option("--masked", type=_share(max_open=True), default=0.0, show_default=True, help="Share of those excluded.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write series, plot and summary here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def simulate(**options: Any) -> None:
    """Play a policy on a --table, on a --log or in a made-up --problem, and say what it earns.

    A table owns its labels and a world its rewards: the policy is told the reward of the action drawn, and no other.
    A log is replayed: what the policy would have earned is estimated by importance weights, and it learns from those
    decisions that it might have made itself. Policy and draws are the service's own; equal seeds give equal runs.
    """
    _Simulation(options).run()


class _Simulation:
    """One call of the command."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        sources = [key for key in ("table", "log", "problem") if options[key] is not None]
        if len(sources) != 1:
            raise click.UsageError("name one of --table, --log and --problem")
        self.source = sources[0]
        self._refuse("table", "label", "rewards", "in_order")
        self._refuse("log", "log_format", "multiplier")
        if self.source == "log" and (options["available"] < 1.0 or options["masked"] > 0.0):
            raise click.UsageError("--available and --masked: a log offers what it offered; leave them out")
        if options["generation"] is not None and options["publish"] is not None:
            raise click.UsageError("--publish is of online learning; with --generation a policy serves a generation")
        if options["name"] is not None and options["config_path"] is None:
            raise click.UsageError("--decision-point needs --config")
        declared = self._declared()
        self.name = "simulation" if declared is None else declared[0]
        self.point = None if declared is None else declared[1]

    def _refuse(self, source: str, *names: str) -> None:
        for name in names:
            if self.source != source and self.options[name] not in (None, False):
                raise click.UsageError(f"--{name.removeprefix('log_').replace('_', '-')} goes with --{source}")

    def _declared(self) -> tuple[str, DecisionPoint] | None:
        path = self.options["config_path"]
        if path is None:
            return None
        points = load_config(path).points()
        name = self.options["name"] or (next(iter(points)) if len(points) == 1 else "")
        if name not in points:
            raise ConfigError(f"--decision-point {name or 'is missing'}: choose one of {', '.join(points)}")
        return name, points[name]

    def run(self) -> None:
        """Play every seed, and tell."""
        from engine.policy import OracleFailure
        from training.simulation.run import run_log, run_world, summary

        one: Callable[[int, Callable[[int], None]], Any]
        if self.source == "log":
            log, own, aside = self._log()
            point = self._with_policy(own)
            settings, title = self._settings(), self.options["log"].name
            count = min(len(log), settings.decisions or len(log))
            one = lambda seed, progress: run_log(log, point, settings, seed, progress)  # noqa: E731
        else:
            world, aside = self._world(), 0
            point = self._with_policy(world.point)
            settings, title = self._settings(), world.name
            count = settings.decisions or world.length
            one = lambda seed, progress: run_world(world, point, settings, seed, progress)  # noqa: E731
        seeds = self.options["seeds"]
        with _progress(len(seeds) * count) as advance:
            try:
                runs = [one(seed, lambda done, i=i: advance(i * count + done)) for i, seed in enumerate(seeds)]  # type: ignore[misc]
            except ValueError as error:  # a log whose propensities cannot be true, an oracle that does not fit
                raise ConfigError(f"{title}: {error}") from error
            except OracleFailure as error:
                raise LeewayError(f"{title}: the oracle failed: {error}; try another one, or other features") from error
        told = {
            "source": {self.source: title, "put_aside": aside},
            "policy": point.policy.model_dump(mode="json", include={"oracle", "learning", "exploration", "salt"}),
            "oracle": self._oracle_kind(),
            "learning": point.policy.learning,
            "generation": settings.generation,
            "publish": settings.publish if settings.generation is None else None,
            "delay": settings.delay,
            "window": settings.window,
            "floor": settings.share,
            "available": settings.offer.available,
            "masked": settings.offer.masked,
            **summary(runs),
        }
        if self.options["out"] is not None:
            _write(self.options["out"], runs, told, title)
        if self.options["as_json"]:
            print_json(told)
        else:
            _print(told, self.source)

    def _world(self) -> Any:
        options = self.options
        if self.source == "table":
            from training.simulation.table import read_world

            return read_world(
                options["table"], options["label"], options["rewards"], self.point, ordered=options["in_order"]
            )
        from training.simulation.generator import PROBLEMS

        if options["problem"] not in PROBLEMS:
            raise ConfigError(f"--problem {options['problem']}: unknown; choose one of {', '.join(PROBLEMS)}")
        return PROBLEMS[options["problem"]]

    def _log(self) -> tuple[Any, DecisionPoint, int]:
        """Return the log as a dataset, its decision point, and how many lines were put aside."""
        from streaming.interop import read_archive, read_file, to_dataset

        path, kind = self.options["log"], self.options["log_format"]
        if path.is_dir():
            if self.point is None:
                raise ConfigError(f"--log {path}: an archive needs --config, which declares its features")
            return read_archive(path, self.name, self.point), self.point, 0
        if kind is None:
            raise ConfigError(f"--log {path}: say what it is: --format dsjson, vw or obd")
        feedbacks, aside = read_file(path, kind, self.name)
        dataset, point, rejected = to_dataset(feedbacks, self.name, self.point, path)
        return dataset, point, len(aside) + rejected

    def _oracle_kind(self) -> str:
        oracle = self.options["oracle"]
        return "linear" if oracle is None else str(oracle["kind"])

    def _with_policy(self, point: DecisionPoint) -> DecisionPoint:
        """Return the decision point with the policy that the flags ask for."""
        policy = (self.point or point).policy.model_dump(mode="json")
        oracle, exploration = self.options["oracle"], self.options["exploration"]
        if self.options["learning"] is not None:
            policy["learning"] = self.options["learning"]
        if exploration is not None:
            policy["exploration"] = exploration
        if oracle is not None and not self._in_batch_only():
            policy["oracle"] = oracle
        try:
            return point.model_copy(update={"policy": PolicyConfig.model_validate(policy, context=None)})
        except ValidationError as error:
            raise ConfigError(_said(error)) from None

    def _in_batch_only(self) -> bool:
        """Say whether the oracle is one that is fitted in generations alone."""
        return self._oracle_kind() == "lightgbm"

    def _settings(self) -> Any:
        from training.simulation.run import Settings
        from training.simulation.student import fit_configured, fit_trees
        from training.simulation.world import Offer

        options = self.options
        learning, kind, online = options["learning"], self._oracle_kind(), options["generation"] is None
        if online and self._in_batch_only():
            raise ConfigError(f"--oracle {kind}: is fitted in batch alone; add --generation, such as --generation 1000")
        if self._in_batch_only() and learning not in (None, "plain"):
            raise ConfigError(f"--learning {learning}: {kind} is fitted plain; choose another oracle, such as trees")
        trees = {key: value for key, value in (options["oracle"] or {}).items() if key != "kind"}
        try:
            lightgbm = LightGBMConfig.model_validate(trees if self._in_batch_only() else {}, context=WRITTEN)
        except ValidationError as error:
            raise ConfigError(_said(error, "oracle")) from None
        return Settings(
            decisions=options["decisions"],
            generation=options["generation"],
            publish=options["publish"] or PUBLISH,
            delay=options["delay"],
            window=options["window"],
            share=options["floor"],
            offer=Offer(options["available"], options["masked"]),
            fit=fit_trees(lightgbm) if self._in_batch_only() else fit_configured,
            multiplier=options["multiplier"],
        )


def _said(error: ValidationError, prefix: str = "") -> str:
    """Return what is wrong with the flags, each setting by its name."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(step) for step in (*([prefix] if prefix else []), *problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if where:
            problems.append(f"--{where}: {message} (got {problem['input']!r})")
        else:  # the two do not go together
            problems.append(f"--oracle, --exploration: {message}")
    return "; ".join(problems)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it has come, where there is a terminal to show it on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decisions", total=total)
        yield lambda done: bar.update(task, completed=done)


def _write(directory: Path, runs: Any, told: dict[str, Any], title: str) -> None:
    from training.simulation.report import draw_series, write_generations, write_series

    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_series(directory / "series.csv", runs)
        if runs[0].generations:
            write_generations(directory / "generations.csv", runs)
        draw_series(runs, title).savefig(directory / "series.png", dpi=120)
        (directory / "summary.json").write_text(json.dumps(told, indent=2) + "\n")
    except OSError as error:
        fail(f"--out {directory}: cannot be written ({error.strerror})", USAGE)


def _print(told: dict[str, Any], source: str) -> None:
    spread = told["reward"]["sd"]
    seeds = len(told["seeds"])
    over = f" (standard deviation over {seeds} seeds: {spread:.4f})" if spread is not None else ""
    what = "estimated mean reward" if source == "log" else "mean reward"
    click.echo(f"{what} of {told['decisions']} decisions: {told['reward']['mean']:.4f}{over}")
    if told["shortfall"] is not None:
        click.echo(f"the best available action would have earned {told['shortfall']:.4f} more")
    for seed in told["seeds"] if source == "log" else ():
        ips, snips = seed["estimates"]["ips"], seed["estimates"]["snips"]
        click.echo(
            f"seed {seed['seed']}: ips {ips['value']:.4f} ({ips['low']:.4f} to {ips['high']:.4f}), "
            f"snips {snips['value']:.4f} ({snips['low']:.4f} to {snips['high']:.4f}), "
            f"effective sample size {ips['effective_sample_size']:.0f}, greatest weight {ips['max_weight']:.1f}; "
            f"accepted {seed['accepted']} of {told['decisions']}, log itself {seed['log_reward']:.4f}"
        )
    if "generations" in told:
        _print_generations(told)


def _print_generations(told: dict[str, Any]) -> None:
    columns = ("reward", "positives", "ess_uniform", "starved", "calibration", "gap")
    table = Table(*["generation", *columns], box=None)
    by_number: dict[int, list[dict[str, Any]]] = {}
    for facts in told["generations"]:
        by_number.setdefault(facts["generation"], []).append(facts)
    for number, rows in by_number.items():
        means = [sum(row[column] for row in rows) / len(rows) for column in columns]
        table.add_row(str(number), *(f"{mean:.0f}" if mean >= 10 else f"{mean:.4f}" for mean in means))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
    known = [value for value in told["alternation"] if value is not None]
    if known:
        shown = " ".join(f"{value:+.4f}" for value in known)
        click.echo(f"odd generations earn more than even ones by, for each seed: {shown}")
