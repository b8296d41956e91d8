"""Recommenders in the configuration, and the tables that become their catalogues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from engine.errors import ConfigError, LeewayError, SnapshotError
from streaming.catalogues import catalogue_path, read_catalogue, read_table, save_catalogue
from streaming.config import config_schema, load_config
from streaming.list_publisher import ListPublisher
from tests.engine.recommender.shop import NAME, SETTINGS, make_policy, shop

ROOT = Path(__file__).parents[2]
ROWS = [
    {"item_id": "007", "price": 3.5, "look": [1.0, 2.0]},
    {"item_id": "b", "price": None, "look": None},
]
CSV = "item_id,price,look\n007,3.5,1.0|2.0\nb,,\n"


def test_the_example_of_the_docs_is_good_and_the_schema_knows_recommenders() -> None:
    config = load_config(ROOT / "docs" / "recommender.example.yaml", {})
    assert list(config.recommenders) == list(config.deciding) == ["shop"]
    assert config.recommenders["shop"].retraining.every == 86_400_000
    assert {"recommenders", "decision_points"} <= set(config_schema()["properties"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"recommenders": {NAME: SETTINGS}, "decision_points": {NAME: {}}}, "both have 'shop'"),
        ({"recommenders": {}}, "decision_points: at least 1 is required"),
        ({"recommenders": {NAME: {**SETTINGS, "slots": 0}}}, "recommenders.shop.slots"),
        ({"recommenders": {NAME: {**SETTINGS, "slotz": 1}}}, "did you mean slots?"),
    ],
)
def test_a_configuration_that_cannot_be_names_field_value_and_remedy(
    content: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump({"version": 1, **content}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert words in str(caught.value)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_table_becomes_a_catalogue_and_comes_back_from_its_file(ending: str, tmp_path: Path) -> None:
    table = tmp_path / f"items{ending}"
    if ending == ".csv":
        table.write_text(CSV)
    elif ending == ".jsonl":
        table.write_text('{"item_id": "007", "price": 3.5, "look": [1.0, 2.0]}\n{"item_id": "b"}\n')
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), table)
    items = read_table(table, shop())
    assert items.ids == ("007", "b")
    assert items.columns["price"].tolist()[0] == 3.5
    assert np.isnan(items.columns["price"][1])
    assert items.columns["look"].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    path = catalogue_path(tmp_path, NAME)
    assert read_catalogue(path, shop()) is None
    save_catalogue(path, items)
    again = read_catalogue(path, shop())
    assert again is not None
    assert again.digest == items.digest
    path.write_bytes(b"damaged")
    with pytest.raises(SnapshotError, match="leeway catalogue load"):
        read_catalogue(path, shop())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price\n1\n", "has no column item_id"),
        ("item_id,colour\na,red\n", "column 'colour' is no item field"),
        ("item_id,price\na,cheap\n", "column price, row 1: 'cheap' is no number"),
        ("item_id,look\na,1|2|3\n", "has 3 numbers, not 2"),
        ("item_id\na\na\n", "item 'a' stands twice"),
    ],
)
def test_a_table_that_cannot_be_names_column_row_and_remedy(text: str, words: str, tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text(text)
    with pytest.raises(LeewayError) as caught:
        read_table(table, shop())
    assert words in str(caught.value)


def test_a_new_catalogue_is_published_and_the_model_stays(tmp_path: Path) -> None:
    from engine.recommender.store import RecommenderStore
    from streaming.embedded import EmbeddedLog
    from streaming.topics import topics

    log = EmbeddedLog(tmp_path / "log", fsync=False)
    log.create(topics(1, 1_000_000))
    store = RecommenderStore(tmp_path / "policies")
    store.publish(make_policy(catalogue=False))
    clock = iter(range(0, 10**9, 5_000))
    publisher = ListPublisher(log, {NAME: shop()}, store, tmp_path, lambda: next(clock))
    publisher.step()
    assert publisher.policies[NAME].catalogue is None
    (tmp_path / "items.csv").write_text(CSV)
    save_catalogue(catalogue_path(tmp_path, NAME), read_table(tmp_path / "items.csv", shop()))
    publisher.step()
    current = store.current(NAME)
    assert current is not None
    policy = store.load(NAME, current)
    assert policy.catalogue is not None
    assert policy.catalogue.ids == ("007", "b")
    assert (policy.generation, policy.update, policy.model is not None) == (1, 1, True)
    publisher.step()
    assert store.current(NAME) == current, "nothing is new"
    log.close()
