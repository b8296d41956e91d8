"""``leeway train-recommender``: a model from a table, day by day, before any list was served."""

from __future__ import annotations

from pathlib import Path

import click

from engine.config import CategoryField, HistoryField, NumberField, Recommender, RecommenderField
from streaming.catalogue_command import recommender_of
from streaming.catalogues import catalogue_path, read_catalogue
from streaming.config import load_config
from streaming.options import actionable, config_option, print_json
from training.sessions.schema import FieldColumn, TableSchema

#: Between the entries of a list in a cell of CSV, as in catalogues.
_BETWEEN = "|"


def schema_of(recommender: Recommender, day: str, session: str) -> TableSchema:
    """Return the schema of a table whose columns are called as the fields and tasks of a recommender.

    >>> shop = Recommender.model_validate({"item": {"price": {"type": "number"}}, "tasks": {"click": 1}})
    >>> schema_of(shop, "day", "session").item["price"].kind
    'statistical'
    """
    return TableSchema(
        day=day,
        session=session,
        labels={task: task for task in recommender.tasks},
        user={name: _column(field) for name, field in recommender.user.items()},
        item={name: _column(field) for name, field in recommender.item.items()},
    )


def _column(field: RecommenderField) -> FieldColumn:
    match field:
        case NumberField():
            return FieldColumn(kind="statistical", buckets=field.buckets)
        case CategoryField():
            return FieldColumn(kind="categorical")
        case HistoryField():
            return FieldColumn(kind="sequential", length=field.length, vocabulary=field.of, separator=_BETWEEN)
        case _:
            return FieldColumn(kind="dense", length=field.size, separator=_BETWEEN)


@click.command("train-recommender")
@config_option
@click.argument("table", type=click.Path(path_type=Path, exists=True))
@click.option("--recommender", "name", help="Which; needed where several are configured.")
@click.option("--day", "day_column", default="day", show_default=True, help="Column with the day, a date or a time.")
@click.option("--session", "session_column", default="session", show_default=True, help="Column with the session's id.")
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the training goes on from; default: below the data directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def train_recommender(
    config_path: Path,
    table: Path,
    name: str | None,
    day_column: str,
    session_column: str,
    checkpoints: Path | None,
    as_json: bool,
) -> None:
    """Train on TABLE (Parquet or CSV, one row an item shown) and publish the model, which `leeway serve` takes up.

    Columns are called as the fields and tasks of the recommender. Each day is scored by the model of the days before,
    which is the AUC that is printed, and then learned in one pass. Called again with more days, it goes on after the
    last one; so it does after a crash.
    """
    config = load_config(config_path)
    which = recommender_of(config, name)
    settings = config.recommenders[which]
    recommender = settings.engine()

    from engine.recommender.policy import RecommenderPolicy
    from engine.recommender.store import RecommenderStore
    from streaming.serve import now_ms
    from training.day_trainer import save_state, trainer_path
    from training.elbo_tds.pipeline import train_recommender as train
    from training.sessions.table import open_table

    source = open_table(table, schema_of(recommender, day_column, session_column))
    directory = checkpoints or config.data_dir / "training" / which
    trained = train(
        settings.retraining.elbo_tds,
        source,
        directory,
        name=which,
        progress=lambda day, doing, sessions: None,
    )
    days = []
    for report in trained.days:
        aucs = {task: ranking.auc for task, ranking in report.rankings.items()}
        days.append({"day": report.day, "auc": aucs})
        if not as_json:
            words = ", ".join(f"{task} {auc:.4f}" for task, auc in aucs.items()) or "the first one, scored by nothing"
            click.echo(f"day {report.day}: AUC {words}")
    store = RecommenderStore(config.policy_dir)
    current = store.current(which)
    generation, update = 0, 1
    if current is not None:
        before = store.load(which, current)
        generation, update = before.generation, before.update + 1
    catalogue = read_catalogue(catalogue_path(config.catalogue_dir, which), recommender)
    lists = sum(int(ranking.sessions) for report in trained.days for ranking in list(report.rankings.values())[:1])
    policy = RecommenderPolicy(
        which, recommender, trained.space, trained.model, catalogue, generation, update, lists, now_ms()
    )
    # A table holds no logged list: the first retraining goes on from here with all of them.
    save_state(trainer_path(store.root / which, policy.version), trained.state, 0, lists)
    store.publish(policy)
    if as_json:
        print_json({"recommender": which, "policy_version": policy.version, "days": days})
    else:
        click.echo(
            f"{policy.version} of {which} is published; `leeway serve` takes it up, and a retraining replaces it"
        )
