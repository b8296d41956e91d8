"""``leeway simulate`` as a data scientist meets it: figures, files, and what it says of flags that do not fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streaming.cli import main
from tests.training.formats.test_reading import GOLDEN

DATA = Path(__file__).parents[3] / "shared" / "data" / "bandits"


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    result = simulate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def test_a_world_is_played_for_each_seed_and_equal_calls_write_equal_files(tmp_path: Path) -> None:
    arguments = ["--problem", "linear", "--seeds", "0-2", "--decisions", "400", "--delay", "20", "--available", "0.7"]
    figures = told(*arguments, "--out", tmp_path / "one")
    simulate(*arguments, "--out", tmp_path / "two")
    assert [seed["seed"] for seed in figures["seeds"]] == [0, 1, 2]
    assert figures["reward"]["sd"] > 0.0
    assert json.loads((tmp_path / "one" / "summary.json").read_text()) == figures
    for name in ("series.csv", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    rows = list(csv.DictReader((tmp_path / "one" / "series.csv").read_text().splitlines()))
    assert {row["seed"] for row in rows} == {"0", "1", "2"}
    last = [row for row in rows if row["seed"] == "1"][-1]
    assert (int(last["decisions"]), float(last["reward_so_far"])) == (400, figures["seeds"][1]["reward"])
    assert (tmp_path / "one" / "series.png").read_bytes().startswith(b"\x89PNG")


def test_generations_are_told_one_by_one(tmp_path: Path) -> None:
    figures = told(
        "--problem", "logistic", "--decisions", 900, "--generation", 300, "--oracle", "lightgbm:trees=5,leaves=4",
        "--window", 1, "--exploration", "squarecb:gamma_scale=100,gamma_exponent=0", "--out", tmp_path,
    )  # fmt: skip
    assert [facts["generation"] for facts in figures["generations"]] == [0, 1, 2]
    assert figures["generations"][0]["ess_uniform"] == pytest.approx(300.0)
    assert figures["policy"]["exploration"]["gamma_scale"] == 100.0
    assert len((tmp_path / "generations.csv").read_text().splitlines()) == 4


def test_a_table_is_played_with_the_policy_of_a_configuration(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},{'xy'[i % 7 > 3]}\n" for i in range(300))
    (tmp_path / "t.csv").write_text(f"n,kind\n{rows}")
    config = tmp_path / "leeway.yaml"
    config.write_text(
        "version: 1\ndecision_points:\n  kinds:\n    context: {n: {type: number, scale: 0.2}}\n"
        "    policy: {exploration: {kind: uniform}}\n"
    )
    ours = told("--table", tmp_path / "t.csv", "--label", "kind", "--config", config)
    assert ours["policy"]["exploration"]["kind"] == "uniform"
    assert abs(ours["reward"]["mean"] - 0.5) < 0.15
    learned = told("--table", tmp_path / "t.csv", "--label", "kind", "--config", config, "--exploration", "squarecb")
    assert learned["reward"]["mean"] > 0.75


def test_a_log_is_replayed_and_estimated() -> None:
    figures = told("--log", GOLDEN / "personalizer.dsjson", "--format", "dsjson", "--publish", 1)
    assert figures["source"] == {"log": "personalizer.dsjson", "put_aside": 3}
    [seed] = figures["seeds"]
    assert seed["log_reward"] == 0.5
    assert seed["estimates"]["ips"]["n"] == 2
    # Uniform until something is learned: 1/4 of the logged 0.875, the reward 1, and nothing for the other decision.
    assert figures["reward"]["mean"] == pytest.approx(0.25 / 0.875 / 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of --table, --log and --problem"),
        (["--problem", "linear", "--log", "x"], "one of --table, --log and --problem"),
        (["--problem", "round"], "choose one of linear, logistic, drifting"),
        (["--problem", "linear", "--label", "y"], "--label goes with --table"),
        (["--problem", "linear", "--format", "vw"], "--format goes with --log"),
        (["--problem", "linear", "--seeds", "3-1"], "names no seeds"),
        (["--problem", "linear", "--seeds", "1,1"], "names a seed twice"),
        (["--problem", "linear", "--oracle", "lightgbm"], "add --generation"),
        (["--problem", "linear", "--oracle", "lightgbm:trees=none", "--generation", "9"], "--oracle.trees"),
        (["--problem", "linear", "--oracle", "linear:rigde=1"], "rigde"),
        (["--problem", "linear", "--exploration", "squarecb:gamma_scale"], "kind:name=value"),
        (["--problem", "linear", "--exploration", "linucb"], "needs std"),
        (["--problem", "linear", "--learning", "magic"], "'plain', 'ips', 'mtr' or 'dr' (got 'magic')"),
        (["--problem", "linear", "--generation", "9", "--publish", "9"], "--publish is of online learning"),
        (["--problem", "linear", "--decision-point", "x"], "needs --config"),
        (["--problem", "linear", "--available", "0"], "--available"),
        (["--log", "missing.dsjson", "--format", "dsjson"], "cannot be read"),
        (["--log", str(GOLDEN / "cb_adf.txt")], "--format"),
        (["--log", str(GOLDEN), "--format", "dsjson"], "needs --config"),
        (["--log", str(GOLDEN / "cb_adf.txt"), "--format", "obd"], "lacks the columns"),
        (["--log", str(GOLDEN / "cb_adf.txt"), "--format", "dsjson"], "no line that is feedback"),
        (["--log", "x", "--available", "0.5"], "offers what it offered"),
        (["--table", "missing.csv", "--label", "y"], "cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_and_ends_with_2(arguments: list[str], said: str) -> None:
    result = simulate(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is missing")
def test_a_real_table_is_learned() -> None:
    """Uniform would earn 0.33 of its 178 rows."""
    assert told("--table", DATA / "wine.npz", "--publish", 1, "--seeds", "0-2")["reward"]["mean"] > 0.75
