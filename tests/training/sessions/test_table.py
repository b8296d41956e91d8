"""Sessions out of a person's own table: values as they are in it, in bounded pieces, and errors that say what to do."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from engine.errors import ConfigError
from engine.recommender.fields import SIDES
from engine.recommender.space import FieldSpace
from training.sessions import Sessions, SessionSource
from training.sessions.schema import TableSchema, read_schema
from training.sessions.table import TableSource, open_table

SCHEMA = """
day: date
session: request
labels: {click: clicked, purchase: bought}
user:
  country: {kind: categorical}
  age: {kind: statistical}
  recent: {kind: sequential, length: 5, vocabulary: item_id}
item:
  item_id: {kind: categorical, column: sku}
  price: {kind: statistical, buckets: 4}
  embedding: {kind: dense, length: 2}
"""


def table(days: int = 2) -> dict[str, list[Any]]:
    """Return a table with two rows in each of three sessions a day."""
    columns: dict[str, list[Any]] = {}
    for day in range(days):
        for session in range(3):
            for place in range(2):
                row = {
                    "date": datetime.date(2026, 1, 30) + datetime.timedelta(days=day),
                    "request": f"r{day}{session}",
                    "clicked": (day + session + place) % 2,
                    "bought": 0,
                    "country": [None, "NL", "DE"][session],
                    "recent": [["a", "b"], [], None][session],
                    "sku": f"{'ab'[place]}",
                    "age": float("nan") if session == 2 else 30.0,
                    "price": None if session == 1 else 1.5 * place + day,
                    "embedding": [0.5, place],
                }
                for name, value in row.items():
                    columns.setdefault(name, []).append(value)
    return columns


def schema(text: str = SCHEMA, **changes: Any) -> TableSchema:
    import yaml

    return TableSchema.model_validate(yaml.safe_load(text) | changes)


def parquet(tmp_path: Path, columns: dict[str, list[Any]], **settings: Any) -> Path:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path, **settings)
    return path


def everything(source: SessionSource, sessions: int) -> list[Sessions]:
    return [chunk for day in source.days() for chunk in source.read(day, sessions)]


def test_a_row_of_the_table_is_a_row_of_its_session(tmp_path: Path) -> None:
    source = TableSource(parquet(tmp_path, table(), row_group_size=2), schema())
    assert source.days() == [20_483, 20_484]  # days since 1970
    assert source.tasks == ("click", "purchase")
    [day] = source.read(20_484, 10)
    assert day.user["country"].tolist() == [None, "NL", "DE"]
    assert np.isnan(day.user["age"]).tolist() == [False, False, True]
    assert day.user["recent"].tolist() == [["a", "b"], [], None]
    assert day.item["item_id"].tolist() == ["a", "b"] * 3
    assert np.nan_to_num(day.item["price"], nan=-1.0).tolist() == [1.0, 2.5, -1.0, -1.0, 1.0, 2.5]
    assert day.item["embedding"].tolist() == [[0.5, 0.0], [0.5, 1.0]] * 3
    assert day.session.tolist() == [0, 0, 1, 1, 2, 2]
    assert day.labels.tolist() == [[1, 0], [0, 0], [0, 0], [1, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("sessions", [1, 2, 7])
def test_pieces_hold_whole_sessions_and_no_more_than_were_asked_for(
    tmp_path: Path, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sessions.table._BATCH", 3)  # cuts through the sessions
    source = TableSource(parquet(tmp_path, table(5)), schema())
    chunks = everything(source, sessions)
    assert max(len(chunk.user["country"]) for chunk in chunks) <= sessions
    assert [item for chunk in chunks for item in chunk.item["item_id"]] == ["a", "b"] * 15
    assert [country for chunk in chunks for country in chunk.user["country"]] == [None, "NL", "DE"] * 5


def test_csv_gives_what_parquet_gives(tmp_path: Path) -> None:
    columns = table()
    written = {
        **columns,
        "recent": [None if cell is None else " ".join(cell) for cell in columns["recent"]],
        "embedding": [" ".join(map(str, cell)) for cell in columns["embedding"]],
    }
    csv.write_csv(pa.table(written), tmp_path / "table.csv")
    sources = [TableSource(tmp_path / "table.csv", schema()), TableSource(parquet(tmp_path, columns), schema())]
    spaces = [FieldSpace(source.user, source.item).fitted(everything(source, 2)) for source in sources]
    assert spaces[0].digest() == spaces[1].digest()
    assert spaces[0].vocabularies["item_id"] == ("a", "b")
    for one, other in zip(*(everything(source, 2) for source in sources), strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        for side in SIDES:
            a, b = (spaces[0].encode(side, chunk.user if side == "user" else chunk.item) for chunk in (one, other))
            assert a.categorical.tolist() == b.categorical.tolist()
            assert a.sequential.tolist() == b.sequential.tolist()
            assert a.dense.tolist() == b.dense.tolist()


@pytest.mark.parametrize(
    "days",
    [
        [3, 4],
        [datetime.datetime(1970, 1, 4, 23, 59, 59, 999), datetime.datetime(1970, 1, 5)],
        ["1970-01-04", "1970-01-05 12:00:00"],
    ],
)
def test_a_day_may_be_a_number_a_time_or_a_text(tmp_path: Path, days: list[Any]) -> None:
    columns = table() | {"date": [days[0]] * 6 + [days[1]] * 6}
    source = TableSource(parquet(tmp_path, columns), schema())
    assert list(source.days()) == [3, 4]
    assert [len(chunk) for chunk in everything(source, 3)] == [6, 6]


def test_rolling_statistics_are_counted_from_the_table(tmp_path: Path) -> None:
    asked = schema(rolling={"item": ["item_id"], "windows": [1]})
    source = open_table(parquet(tmp_path, table()), asked)
    assert [field.name for field in source.item][3:] == [
        "item_id_shown_1",
        "item_id_click_1",
        "item_id_click_rate_1",
        "item_id_purchase_1",
        "item_id_purchase_rate_1",
    ]
    first, second = everything(source, 5)
    assert first.item["item_id_shown_1"].tolist() == [0.0] * 6
    assert second.item["item_id_shown_1"].tolist() == [3.0] * 6
    assert second.item["item_id_click_1"].tolist() == [1.0, 2.0] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clicked": [0, 1, 2] * 4}, "labels.click: column 'clicked' .* holds 2.0; a label is 0 or 1"),
        ({"clicked": [0, None, 1] * 4}, "holds nan; a label is 0 or 1"),
        ({"request": ["x", "y"] * 6}, "'x' of day 20483 comes twice .* order the table by date and request"),
        ({"request": ["x", None] * 6}, "session: column 'request' .* has an empty cell on day 20483"),
        ({"country": [None, "NL", "NL", "DE"] * 3}, "user.country: column 'country' changes within session 'r01'"),
        ({"price": ["cheap"] * 12}, "item.price: the column of type string cannot be statistical"),
        ({"embedding": [[1.0]] * 12}, "item.embedding: .* row 1 has 1 numbers, and not 2"),
        ({"date": ["soon"] * 12}, "day: column 'date' .* give whole numbers, dates"),
        ({"date": [None, *[1] * 11]}, "day: column 'date' .* has an empty cell"),
    ],
)
def test_a_row_that_is_not_as_declared_is_named(tmp_path: Path, changes: dict[str, list[Any]], said: str) -> None:
    source = TableSource(parquet(tmp_path, table() | changes), schema())
    with pytest.raises(ConfigError, match=said):
        everything(source, 2)


def test_a_table_that_is_none_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    columns = table()
    del columns["sku"]
    with pytest.raises(ConfigError, match=r"item.item_id: .* has no column 'sku'; it has: date, request"):
        TableSource(parquet(tmp_path, columns), schema())
    (tmp_path / "none.parquet").write_text("none")
    for name in ("none.parquet", "missing.csv"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
            TableSource(tmp_path / name, schema())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCHEMA.replace("kind: statistical", "kind: number"), "item.price.kind: Input should be 'statistical'"),
        (SCHEMA.replace("session: request\n", ""), "session: Field required"),
        (SCHEMA + "rolling: {user: [price]}\n", "rolling.user: 'price' is no categorical field of the user side"),
        (SCHEMA.replace("price:", "country:"), "'country' is a field of both sides"),
        (SCHEMA.replace("buckets: 4", "length: 4"), "price: length is of sequential and dense fields"),
        ("day: [", "cannot be read as YAML"),
        ("", "the schema: Input should be"),
    ],
)
def test_a_schema_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_schema(path)
