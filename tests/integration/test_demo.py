"""``leeway demo`` as a new user runs it: the whole loop on real data, with the figures that are promised."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_wine

from streaming.config import load_config
from tests.integration.service import leeway
from training.mlflow_import import mlflow


def closed(figures: dict[str, Any]) -> bool:
    """Whether the books close, and every decision is as it was logged."""
    return bool(
        figures["decisions"] == figures["feedback"] + figures["pending"]
        and figures["feedback"] >= figures["defaulted"] >= 0
        and figures["replayed"] == figures["decisions"]
        and figures["replay_mismatches"] == 0
        and figures["decisions_logged_twice"] == 0
        and figures["acknowledged_missing"] == 0
        and figures["client_errors"] == []
    )


def pictures(report: Path) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', report.read_text())]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow's own tables
def test_the_demo_learns_notices_retrains_promotes_and_recovers(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    shown = leeway("demo", "--dir", directory, "--json", tmp_path / "figures.json")
    assert shown.returncode == 0, shown.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())

    assert [goal["name"] for goal in figures["goals"] if not goal["holds"]] == []
    assert closed(figures)
    assert figures["pending"] == 0
    assert figures["dead_letters"] > 0  # the demo sends outcomes of no decision
    assert figures["duplicate_outcomes"] > 0
    assert figures["late_outcomes"] > 0
    assert figures["defaulted"] > 0
    assert figures["reward_before"] >= 0.80
    assert figures["reward_after"] >= 0.9 * figures["reward_before"]
    calls = [alarm["joined_after_change"] for alarm in figures["alarms"] if alarm["calls_for_retraining"]]
    assert not [at for at in calls if -2_000 <= at < 0]
    assert 0 <= min(at for at in calls if at >= 0) <= 400
    promoted = [entry for entry in figures["generations"] if entry["promoted"] and entry["after_change"]]
    assert promoted

    report = directory / "report.html"
    plots = pictures(report)
    assert len(plots) >= 3
    assert all(plot.startswith(b"\x89PNG") and len(plot) > 10_000 for plot in plots)
    page = report.read_text()
    assert {f">{figures[name]}<" for name in ("decisions", "feedback", "defaulted")} <= set(re.findall(r">\d+<", page))
    assert all(alarm["explanation"].split(":")[0] in page for alarm in figures["alarms"])

    config = load_config(directory / "leeway.yaml", {})
    client = mlflow.MlflowClient(tracking_uri=config.tracking_uri, registry_uri=config.tracking_uri)
    champion = client.get_model_version_by_alias("leeway-demo", "champion")
    assert str(champion.version) == promoted[-1]["registry_version"]
    run = client.get_run(champion.run_id)
    assert {"window_start_ms", "window_end_ms"} <= {**run.data.params, **run.data.tags}.keys()
    assert run.data.metrics
    assert [entry.path for entry in client.list_artifacts(champion.run_id, "plots")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_runs_on_a_table_of_ones_own(tmp_path: Path) -> None:
    wine = load_wine(as_frame=True)
    table = wine.frame.copy()
    table["target"] = [str(wine.target_names[number]) for number in wine.target]
    table["strength"] = ["strong" if alcohol > 13 else "light" for alcohol in table["alcohol"]]
    table.loc[::10, "hue"] = None
    table.to_csv(tmp_path / "wine.csv", index=False)
    shown = leeway(
        "demo", "--dir", tmp_path / "demo", "--json", tmp_path / "figures.json", "--data", tmp_path / "wine.csv",
        "--label", "target", "--before", "2000", "--after", "2000", "--rate", "250",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["data"] == "wine.csv"
    assert closed(figures)
    assert figures["decisions"] >= 4_000
    assert figures["reward_before"] > 1 / 3 + 0.1  # a third is what chance gives
    assert len(pictures(tmp_path / "demo" / "report.html")) >= 3


def test_the_demo_refuses_in_words_what_it_cannot_use(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    cases: tuple[tuple[list[str | Path], str], ...] = (
        (["--data", table], "--data and --label go together"),
        (["--data", table, "--label", "z"], "no such column in"),
        (["--dir", mine], "is not empty and no demo made it"),
    )
    for arguments, words in cases:
        refused = leeway("demo", "--dir", tmp_path / "demo", *arguments)
        assert refused.returncode == 2, refused.stderr
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "demo").exists()
