from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from streaming.config import load_config
from streaming.demo.run import MARKER, prepare
from streaming.demo.world import World, digits, read_table

CSV = "size,colour,kind\n" + "".join(f"{n % 7}.5,{'red' if n % 2 else ''},{'abc'[n % 3]}\n" for n in range(60))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(CSV)
    return path


def test_a_table_of_ones_own_becomes_rows_actions_and_a_schema(table: Path) -> None:
    read = read_table(table, "kind")
    assert read.actions == ["a", "b", "c"]
    assert [feature["type"] for feature in read.schema.values()] == ["number", "text"]
    assert read.rows[1]["f0"] == 1.5
    assert len(read.rows) == len(read.labels) == 60


def test_rows_without_a_label_are_left_out(table: Path) -> None:
    table.write_text(CSV + "1.5,red,\n2.5,,\n")
    assert len(read_table(table, "kind").rows) == 60


@pytest.mark.parametrize(
    ("label", "text", "says"),
    [
        ("price", CSV, "no such column"),
        ("kind", "".join(CSV.splitlines(keepends=True)[:20]), "too few"),
        ("size", "size\n" + "\n".join(str(n) for n in range(60)), "60 distinct values"),
        ("kind", "size,kind\n1,2,3\n", "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_played_is_refused_with_a_reason(table: Path, label: str, text: str, says: str) -> None:
    table.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_table(table, label)


def test_the_world_changes_every_label_and_only_from_the_change_on() -> None:
    table = digits()
    world = World(table, change_at=2_000, seed=0)
    visits = [world.visit(number) for number in range(4_000)]
    assert all(visit.right == table.labels[visit.row] for visit in visits[:2_000])
    assert all(visit.right != table.labels[visit.row] for visit in visits[2_000:])
    assert len({visit.row for visit in visits[:1_797]}) == 1_797  # each row once before any twice


def test_the_demo_empties_no_directory_but_its_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no demo made it"):
        prepare(mine, digits())
    assert (mine / "thesis.txt").exists()
    path = prepare(tmp_path / "demo", digits())
    load_config(path, {})
    (path.parent / "report.html").touch()
    prepare(path.parent, digits())
    assert (path.parent / MARKER).exists()
    assert not (path.parent / "report.html").exists()
