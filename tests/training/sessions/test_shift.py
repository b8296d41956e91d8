"""The analysis of shift: divergences as defined, what shifts ranked above what does not, and reports that hold it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from scipy.spatial.distance import jensenshannon

from benchmarks._temporal_generator import GeneratedSessions, World
from streaming.cli import main
from tests.training.sessions.sources import Row, RowSource
from training.mlflow_import import mlflow
from training.registry import Registry
from training.sessions.shift import analyse, chance, jensen_shannon, population_stability
from training.sessions.shift_report import log_to_mlflow

DIGINETICA = Path(__file__).parents[4] / "shared" / "data" / "temporal" / "diginetica.npz"
#: Without new items, whose ids and prices would shift too.
SMALL = World(days=8, sessions=500, users=1_000, items=300, churn=0.0, sale_days=(6,))


def test_divergences_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 40, 30), rng.integers(0, 40, 30)
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)
    a, b = (counts + 0.5 for counts in (p[(p + q) > 0], q[(p + q) > 0]))
    a, b = a / a.sum(), b / b.sum()
    assert population_stability(p, q) == pytest.approx((a * np.log(a / b)).sum() + (b * np.log(b / a)).sum())
    assert np.isnan([population_stability([0, 0], [1, 2]), jensen_shannon([1, 2], [0, 0])]).all()
    with pytest.raises(ValueError, match="same cells"):
        jensen_shannon([1, 2], [1, 2, 3])


def test_without_a_shift_the_index_is_on_average_what_chance_gives() -> None:
    rng = np.random.default_rng(1)
    law = rng.dirichlet(np.full(20, 5.0))
    pairs = [(rng.multinomial(2_000, law), rng.multinomial(5_000, law)) for _ in range(400)]
    found = np.array([population_stability(*pair) for pair in pairs])
    # The index of one pair scatters by about sqrt(2 / 19) of its mean, that of 400 by a twentieth of it.
    assert found.mean() == pytest.approx(np.mean([chance(*pair) for pair in pairs]), rel=0.06)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reference", ["first", "previous"])
def test_what_shifts_is_ranked_above_what_does_not_and_proposed(seed: int, reference: Any) -> None:
    source = GeneratedSessions(seed, SMALL)
    report = analyse(source, reference=reference, reference_days=2)
    assert report.days == (tuple(range(2, 8)) if reference == "first" else tuple(range(1, 8)))
    assert set(report.augment) == set(source.shifting)
    assert list(report.augment) == [factor.name for factor in report.factors][: len(source.shifting)]
    by_name = {factor.name: factor for factor in report.factors}
    sale = report.days.index(6)
    assert by_name["discount"].psi[sale] > by_name["discount"].psi[:sale].max()
    assert by_name["city"].shift < 0.02


def test_a_feature_without_values_has_no_shift_and_too_few_days_are_refused() -> None:
    rows = [Row(day, 0, "", "a" if day < 3 else "b", 0) for day in range(5)]
    report = analyse(RowSource(rows), reference_days=2)
    by_name = {factor.name: factor for factor in report.factors}
    assert by_name["item_id"].js.tolist() == [0.0, 1.0, 1.0]
    assert by_name["user_id"].psi.tolist() == [0.0, 0.0, 0.0]
    json.dumps(report.to_json(), allow_nan=False)
    with pytest.raises(ValueError, match="reference_days: 5 of 5 days leave none to compare"):
        analyse(RowSource(rows), reference_days=5)


def test_the_shift_of_the_diginetica_log_is_what_its_description_says() -> None:
    if not DIGINETICA.exists():
        pytest.skip(f"no {DIGINETICA}: the log is not given")
    with np.load(DIGINETICA) as log:
        item, period = log["item"].astype(np.int64), log["period"]
    views = [np.bincount(item[period == day], minlength=item.max() + 1) for day in range(17)]
    assert jensen_shannon(views[1], views[0]) == pytest.approx(0.31, abs=0.005)
    assert jensen_shannon(views[15], views[0]) == pytest.approx(0.58, abs=0.005)
    neighbours = [jensen_shannon(one, other) for one, other in pairwise(views)]
    assert [min(neighbours), max(neighbours)] == pytest.approx([0.27, 0.41], abs=0.005)


def test_a_run_in_mlflow_holds_the_analysis(registry: Registry) -> None:
    report = analyse(GeneratedSessions(0, SMALL), reference_days=2)
    run_id = log_to_mlflow(report, registry, "shop", now_ms=1_000)
    client = mlflow.tracking.MlflowClient(registry.tracking_uri)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["reference_days"]) == ("FINISHED", "0,1")
    assert run.data.metrics["shift/discount"] == pytest.approx(
        next(factor.shift for factor in report.factors if factor.name == "discount")
    )
    assert run.data.tags["augment"].split(",") == list(report.augment)
    files = {file.path for folder in ("", "plots") for file in client.list_artifacts(run_id, folder)}
    assert files >= {"shift.json", "shift.html", "plots/shift_map.png", "plots/shift_curves.png"}


SCHEMA = """
day: day
session: session
labels: {click: click}
user: {segment: {kind: categorical}, recent: {kind: sequential, length: 20, vocabulary: item_id}}
item: {item_id: {kind: categorical}, views_1d: {kind: statistical}, price: {kind: statistical}}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a made-up shop, and its schema beside it."""
    folder = tmp_path_factory.mktemp("shop")
    source = GeneratedSessions(0, SMALL)
    tables = []
    for day in source.days():
        for chunk in source.read(day, 10_000):
            of_row = {name: column[chunk.session] for name, column in chunk.user.items()}
            columns = {
                "day": np.full(len(chunk), day),
                "session": chunk.session,
                "click": chunk.labels[:, 0],
                "segment": of_row["segment"],
                "recent": [row[row >= 0].tolist() for row in of_row["recent"]],
                **{name: chunk.item[name] for name in ("item_id", "views_1d", "price")},
            }
            tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), folder / "shop.parquet")
    (folder / "schema.yaml").write_text(SCHEMA)
    return folder


def shift(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["shift", *map(str, arguments)])


def test_the_command_says_what_the_analysis_says_and_writes_it(shop: Path, tmp_path: Path) -> None:
    arguments = ["--table", shop / "shop.parquet", "--schema", shop / "schema.yaml", "--reference-days", 2]
    result = shift(*arguments, "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    factors = {factor.name: factor for factor in analyse(GeneratedSessions(0, SMALL), reference_days=2).factors}
    for factor in told["factors"]:
        assert factor["psi"] == pytest.approx(factors[factor["name"]].psi.tolist())
    assert set(told["augment"]) == {"recent", "views_1d"}
    assert json.loads((tmp_path / "out" / "shift.json").read_text()) == told
    page = (tmp_path / "out" / "shift.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page  # needs nothing from elsewhere
    assert (tmp_path / "out" / "shift_map.png").read_bytes().startswith(b"\x89PNG")
    lines = shift(*arguments, "--against", "previous").stdout.splitlines()
    assert lines[-1].startswith("augment: ")
    assert any(line.split()[0] == "views_1d" for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reference-days", 8], "reference_days: 8 of 8 days leave none to compare"),
        (["--schema", "none.yaml"], "none.yaml: cannot be read as YAML"),
        (["--table", "none.parquet"], "none.parquet: cannot be read"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_the_command_says_what_to_do(shop: Path, arguments: list[object], said: str) -> None:
    result = shift("--table", shop / "shop.parquet", "--schema", shop / "schema.yaml", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
