"""``leeway catalogue``: the items that recommenders choose from."""

from __future__ import annotations

from pathlib import Path

import click

from engine.errors import ConfigError, LeewayError
from streaming.catalogues import FORMATS, catalogue_path, read_catalogue, read_table, save_catalogue
from streaming.config import Config, load_config
from streaming.options import actionable, config_option, print_json


def recommender_of(config: Config, name: str | None) -> str:
    """Return the recommender that is meant; raises ``ConfigError`` where that is not clear."""
    known = list(config.recommenders)
    if not known:
        raise ConfigError("no recommender is configured; declare one below recommenders")
    if name is None and len(known) == 1:
        return known[0]
    if name not in config.recommenders:
        raise ConfigError(f"--recommender {name or 'is missing'}: choose one of {', '.join(known)}")
    return name


@click.group()
def catalogue() -> None:
    """The items that recommenders choose from where a request names none."""


@catalogue.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--recommender", "name", help="Which; needed where several are configured.")
@actionable
def load(config_path: Path, file: Path, name: str | None) -> None:
    """Take the items in FILE (.parquet, .csv or .jsonl) in place of those before.

    A column item_id names each; other columns are item fields. `leeway work` publishes them within seconds.
    """
    config = load_config(config_path)
    which = recommender_of(config, name)
    items = read_table(file, config.recommenders[which])
    save_catalogue(catalogue_path(config.catalogue_dir, which), items)
    click.echo(f"{len(items)} items loaded for {which}, catalogue {items.digest[:8]}; `leeway work` publishes them")


@catalogue.command()
@config_option
@click.option("--recommender", "name", help="Which; needed where several are configured.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@actionable
def show(config_path: Path, name: str | None, as_json: bool) -> None:
    """Say which items were loaded last."""
    config = load_config(config_path)
    which = recommender_of(config, name)
    items = read_catalogue(catalogue_path(config.catalogue_dir, which), config.recommenders[which].engine())
    if items is None:
        raise LeewayError(
            f"{which} has no catalogue: its requests must name candidates; load one ({', '.join(FORMATS)}) with: "
            "leeway catalogue load FILE"
        )
    if as_json:
        print_json({"recommender": which, "items": len(items), "digest": items.digest, "first": list(items.ids[:10])})
    else:
        click.echo(f"{which}: {len(items)} items, catalogue {items.digest[:8]}, from {items.ids[0]!r} on")
